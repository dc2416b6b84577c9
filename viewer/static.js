// Writes the page that runs models in the browser: node static.js FOLDER. It is a folder for any web server, with
// WebGPU, and FOLDER/maskprism-offline.html, one file that opens without a server. onnxruntime-web is in node_modules.
import { build } from "esbuild";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const [folder] = process.argv.slice(2);
if (!folder) throw new Error("name the folder to write into: node static.js FOLDER");
const here = dirname(fileURLToPath(import.meta.url));
const runtime = join(process.env.ONNXRUNTIME_WEB ?? join(here, "node_modules/onnxruntime-web"), "dist");
const packaged = join(here, "../src/maskprism");
await mkdir(folder, { recursive: true });
const files = [
  ...["index.html", "drop.js", "worker.js", "drop.css", "sample.webp"].map((name) =>
    join(packaged, "viewer/static/drop", name),
  ),
  ...["viewer.css", "icon.svg"].map((name) => join(packaged, "viewer/static", name)),
  join(packaged, "data/sample.onnx"),
  ...["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"].map((name) =>
    join(runtime, name),
  ),
  ...["ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"].map((name) =>
    join(runtime, name),
  ),
];
for (const file of files) await copyFile(file, join(folder, file.split("/").at(-1) ?? ""));

const worker = await build({
  entryPoints: [join(here, "src/drop/worker.js")],
  bundle: true,
  minify: true,
  charset: "ascii",
  format: "iife", // browsers open no module worker for a page without a server
  target: ["es2022"],
  define: { SINGLE_FILE: "true", "import.meta.url": "self.location.href" },
  alias: { "onnxruntime-web/wasm": join(runtime, "ort.wasm.bundle.min.mjs") },
  write: false,
});
const text = async (/** @type {string} */ name) => readFile(join(folder, name), "utf8");
const base64 = async (/** @type {string} */ name) => readFile(join(folder, name), "base64");
const held = (/** @type {string} */ id, /** @type {string} */ data) =>
  `<script type="application/octet-stream" id="maskprism-${id}">${data}</script>`;
const icon = `data:image/svg+xml;base64,${await base64("icon.svg")}`;
const parts = [
  held("runtime", await base64("ort-wasm-simd-threaded.wasm")),
  held("worker", Buffer.from(worker.outputFiles[0].text).toString("base64")),
  held("sample-model", await base64("sample.onnx")),
  held("sample-image", await base64("sample.webp")),
  `<script type="module">${(await text("drop.js")).replaceAll("</script", "<\\/script")}</script>`,
];
const policy =
  "default-src 'none'; script-src 'unsafe-inline' blob: 'wasm-unsafe-eval'; worker-src blob:; style-src " +
  "'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'";
const page = (await text("index.html"))
  .replace(/content="default-src[^"]*"/, () => `content="${policy}"`)
  .replaceAll('href="icon.svg"', () => `href="${icon}"`)
  .replaceAll('src="icon.svg"', () => `src="${icon}"`)
  .replace(/<link rel="stylesheet" href="viewer.css">\n<link rel="stylesheet" href="drop.css">/, "<style></style>")
  .replace(/<script type="module" src="drop.js"><\/script>\n/, "");
const style = `<style>${await text("viewer.css")}${await text("drop.css")}</style>`;
const whole = page.replace("<style></style>", () => style).replace("</body>", () => `${parts.join("\n")}\n</body>`);
await writeFile(join(folder, "maskprism-offline.html"), whole);
console.log(
  `wrote ${folder}/index.html (any web server shows it, such as: maskprism serve --static ${folder}) and ` +
    `${folder}/maskprism-offline.html (${Math.round(whole.length / 1e6)} MB, opens without a server)`,
);
