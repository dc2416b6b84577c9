// What the labels say of an instance by the one matching rule of Python (src/maskprism/analysis/truth/matching.py).

import { h } from "./dom.js";

/** @typedef {{ outcome?: string | null, error?: string | null }} Judged */
/** @typedef {{ rule: string, errors: Record<string, string> } | null | undefined} Matching */

/** In short: nothing for a true positive whose mask is right, or where there are no labels. @param {Judged} judged */
export function verdict({ outcome, error }) {
  if (outcome === "false positive")
    return error && error !== "background" ? `false positive: ${error}` : "false positive";
  if (outcome === "excused") return "not counted";
  return outcome && error ? `${error} error` : "";
}

/** With what the kind of error means, and the rule. @param {Judged} judged @param {Matching} matching */
export function verdictTitle(judged, matching) {
  if (!judged.outcome || !matching) return "";
  const kind = judged.error ? `${judged.error}: ${matching.errors[judged.error]}. ` : "";
  return `${judged.outcome[0].toUpperCase()}${judged.outcome.slice(1)}. ${kind}${matching.rule}`;
}

/** The same as an element; null where there is nothing to say. @param {Judged} judged @param {Matching} matching */
export function verdictMark(judged, matching) {
  const text = verdict(judged);
  return text ? h("span", { className: "judged", title: verdictTitle(judged, matching) }, text) : null;
}
