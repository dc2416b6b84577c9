// Written by utils/make_drop_tables.py from the Python package; do not edit.

export const RULES = {
  "ultralytics": {
    "name": "ultralytics",
    "squash": false,
    "crop": "after",
    "crop_image": "after",
    "crop_padding": 0,
    "round_box": false,
    "unpad": "whole",
    "objectness": false,
    "size": "canvas",
    "crop_margin": 0.0,
    "logit_threshold": 0.0,
    "threshold": 0.0
  },
  "ultralytics-8.4.90": {
    "name": "ultralytics-8.4.90",
    "squash": false,
    "crop": "after",
    "crop_image": "after",
    "crop_padding": 0,
    "round_box": false,
    "unpad": "round",
    "objectness": false,
    "size": "canvas",
    "crop_margin": 0.0,
    "logit_threshold": 0.0,
    "threshold": 0.0
  },
  "ultralytics-8.4.83": {
    "name": "ultralytics-8.4.83",
    "squash": false,
    "crop": "before",
    "crop_image": "after",
    "crop_padding": 0,
    "round_box": false,
    "unpad": "round",
    "objectness": false,
    "size": "canvas",
    "crop_margin": 0.0,
    "logit_threshold": 0.0,
    "threshold": 0.0
  },
  "ultralytics-8.3.215": {
    "name": "ultralytics-8.3.215",
    "squash": false,
    "crop": "before",
    "crop_image": "after",
    "crop_padding": 0,
    "round_box": true,
    "unpad": "round",
    "objectness": false,
    "size": "canvas",
    "crop_margin": 0.0,
    "logit_threshold": 0.0,
    "threshold": 0.0
  },
  "ultralytics-8.3.189": {
    "name": "ultralytics-8.3.189",
    "squash": false,
    "crop": "before",
    "crop_image": "after",
    "crop_padding": 0,
    "round_box": false,
    "unpad": "round",
    "objectness": false,
    "size": "canvas",
    "crop_margin": 0.0,
    "logit_threshold": 0.0,
    "threshold": 0.0
  },
  "ultralytics-8.3": {
    "name": "ultralytics-8.3",
    "squash": false,
    "crop": "before",
    "crop_image": "after",
    "crop_padding": 0,
    "round_box": false,
    "unpad": "floor",
    "objectness": false,
    "size": "canvas",
    "crop_margin": 0.0,
    "logit_threshold": 0.0,
    "threshold": 0.0
  },
  "ultralytics-8.2": {
    "name": "ultralytics-8.2",
    "squash": true,
    "crop": "before",
    "crop_image": "after",
    "crop_padding": 0,
    "round_box": false,
    "unpad": "floor",
    "objectness": false,
    "size": "canvas",
    "crop_margin": 0.0,
    "logit_threshold": 0.0,
    "threshold": 0.5
  },
  "yolov5": {
    "name": "yolov5",
    "squash": true,
    "crop": "before",
    "crop_image": "after",
    "crop_padding": 0,
    "round_box": false,
    "unpad": "floor",
    "objectness": true,
    "size": "canvas",
    "crop_margin": 0.0,
    "logit_threshold": 0.0,
    "threshold": 0.5
  },
  "retina": {
    "name": "retina",
    "squash": false,
    "crop": "after",
    "crop_image": "after",
    "crop_padding": 0,
    "round_box": false,
    "unpad": "whole",
    "objectness": false,
    "size": "image",
    "crop_margin": 0.0,
    "logit_threshold": 0.0,
    "threshold": 0.0
  },
  "validation": {
    "name": "validation",
    "squash": false,
    "crop": "after",
    "crop_image": "after",
    "crop_padding": 0,
    "round_box": false,
    "unpad": "whole",
    "objectness": false,
    "size": "grid",
    "crop_margin": 0.0,
    "logit_threshold": 0.0,
    "threshold": 0.0
  },
  "yolact": {
    "name": "yolact",
    "squash": true,
    "crop": "before",
    "crop_image": "before",
    "crop_padding": 1,
    "round_box": false,
    "unpad": "whole",
    "objectness": false,
    "size": "image",
    "crop_margin": 0.0,
    "logit_threshold": 0.0,
    "threshold": 0.5
  },
  "no-crop": {
    "name": "no-crop",
    "squash": false,
    "crop": "none",
    "crop_image": "none",
    "crop_padding": 0,
    "round_box": false,
    "unpad": "whole",
    "objectness": false,
    "size": "canvas",
    "crop_margin": 0.0,
    "logit_threshold": 0.0,
    "threshold": 0.0
  }
};

export const SINCE = [
  [
    [
      8,
      4,
      175
    ],
    "ultralytics"
  ],
  [
    [
      8,
      4,
      90
    ],
    "ultralytics-8.4.90"
  ],
  [
    [
      8,
      4,
      83
    ],
    "ultralytics-8.4.83"
  ],
  [
    [
      8,
      3,
      215
    ],
    "ultralytics-8.3.215"
  ],
  [
    [
      8,
      3,
      189
    ],
    "ultralytics-8.3.189"
  ],
  [
    [
      8,
      3,
      0
    ],
    "ultralytics-8.3"
  ],
  [
    [
      0,
      0,
      0
    ],
    "ultralytics-8.2"
  ]
];

export const FAMILIES = {
  "yolov5": {
    "columns": 5,
    "perCell": 3,
    "objectness": true,
    "rule": "yolov5"
  },
  "yolov8": {
    "columns": 4,
    "perCell": 1,
    "objectness": false,
    "rule": null
  },
  "end2end": {
    "columns": 6,
    "perCell": 0,
    "objectness": false,
    "rule": null
  }
};

export const STRIDE_SETS = [
  [
    8,
    16,
    32
  ],
  [
    4,
    8,
    16,
    32
  ],
  [
    8,
    16,
    32,
    64
  ]
];

export const CLASS_OFFSET = 7680;

export const MOST_CANDIDATES = 30000;

export const NORMALISED_LIMIT = 2.0;

export const KEEP = {
  "conf": 0.25,
  "iou": 0.7,
  "maxDet": 300
};

export const GREY = 114;
