// What is decided about labels: kept in the browser by the number of the card, exported with everything to act on.

/** @typedef {"accept" | "keep" | "delete"} Verdict */
/** @typedef {{ image: string, label_id: number | string | null, box: number[], kind: string }} LabelOfCard */
/** @typedef {{ action: string, category?: number | string, mask?: object } | null} Remedy */
/** @typedef {{ label: LabelOfCard, remedy: Remedy }} Card */
/** @typedef {{ key: string, head: Record<string, unknown>, cards: Card[] }} Page */

/** @type {readonly string[]} */
const VERDICTS = ["accept", "keep", "delete"];

/**
 * Whether a card can be decided so: there may be nothing to accept, and no label to delete.
 * @param {Card} card @param {Verdict} verdict
 */
export const allows = (card, verdict) =>
  verdict === "accept" ? card.remedy !== null : verdict === "keep" || card.label.label_id !== null;

/**
 * When these verdicts were kept, in milliseconds; 0 where that is not known.
 * @param {string | null} text
 */
export function keptAt(text) {
  try {
    return Number(JSON.parse(text ?? "{}").at) || 0;
  } catch {
    return 0;
  }
}

/**
 * The verdicts that were kept, by card; what does not fit the page is left out.
 * @param {string | null} text @param {Card[]} cards @returns {Map<number, Verdict>}
 */
export function restored(text, cards) {
  /** @type {unknown} */
  let kept = null;
  try {
    kept = JSON.parse(text ?? "{}");
  } catch {
    // of another program
  }
  const verdicts = new Map();
  for (const [number, verdict] of Object.entries(kept ?? {})) {
    const card = cards[Number(number)];
    if (card && VERDICTS.includes(verdict) && allows(card, verdict)) verdicts.set(Number(number), verdict);
  }
  return verdicts;
}

/**
 * The file of decisions, as `maskprism labels --apply` reads it.
 * @param {Page} page @param {Map<number, Verdict>} verdicts
 */
export function exported(page, verdicts) {
  const decisions = [...verdicts]
    .sort(([a], [b]) => a - b)
    .map(([number, verdict]) => {
      const { label, remedy } = page.cards[number];
      return { ...label, ...(verdict === "accept" ? remedy : { action: verdict }) };
    });
  return { ...page.head, decisions };
}
