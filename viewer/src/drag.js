// Moving a range input with a pointer. A finger that starts up or down on a slider scrolls the page and moves nothing.

/** The number of pixels sideways, and more than up or down, that make a touch a drag. */
const SIDEWAYS_PX = 6;

/** @typedef {{ move: (value: number) => void, end: () => void }} Moves */
/** @typedef {{ id: number, x: number, y: number, from: number, before: number, moving: boolean }} Drag */

/**
 * Lets `track` take all presses for the input in it, which must take none itself (pointer-events: none in the style).
 * A mouse jumps to where it is pressed; a finger takes the thumb along from where it is, however far away it touches.
 * What the browser takes over for scrolling goes back to where it was.
 * @param {HTMLElement} track @param {HTMLInputElement} input @param {Moves} moves
 */
export function draggable(track, input, { move, end }) {
  /** @type {Drag | null} */
  let drag = null;
  const bounds = () => ({ low: Number(input.min), high: Number(input.max) });
  const clamp = (/** @type {number} */ value) => Math.min(Math.max(value, bounds().low), bounds().high);
  /** How far the thumb goes, and where its middle is. */
  const way = () => {
    const { left, width } = track.getBoundingClientRect();
    const thumb = Number.parseFloat(getComputedStyle(input).getPropertyValue("--thumb")) || 0;
    const { low, high } = bounds();
    const length = Math.max(width - thumb, 1);
    return {
      length,
      thumb,
      first: left + thumb / 2,
      per: (high - low) / length,
      at: left + thumb / 2 + ((input.valueAsNumber - low) / (high - low)) * length,
    };
  };
  const finish = (/** @type {boolean} */ taken) => {
    const ended = drag;
    drag = null;
    if (!ended?.moving) return;
    if (taken) move(ended.before);
    end();
  };
  track.addEventListener("mousedown", (event) => event.preventDefault()); // selects no text
  track.addEventListener("pointerdown", (event) => {
    if (event.button || input.disabled || drag) return;
    const before = input.valueAsNumber;
    drag = {
      id: event.pointerId,
      x: event.clientX,
      y: event.clientY,
      from: before,
      before,
      moving: event.pointerType !== "touch",
    };
    if (!drag.moving) return;
    track.setPointerCapture(event.pointerId);
    input.focus({ preventScroll: true });
    const { at, thumb, first, per } = way();
    if (Math.abs(event.clientX - at) <= thumb / 2) return;
    drag.from = clamp(bounds().low + (event.clientX - first) * per);
    move(drag.from);
  });
  track.addEventListener("pointermove", (event) => {
    if (drag?.id !== event.pointerId) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moving) {
      if (Math.abs(dx) < SIDEWAYS_PX || Math.abs(dx) <= Math.abs(dy)) return;
      Object.assign(drag, { moving: true, x: event.clientX });
      track.setPointerCapture(event.pointerId);
      return;
    }
    move(clamp(drag.from + dx * way().per));
  });
  track.addEventListener("pointerup", (event) => drag?.id === event.pointerId && finish(false));
  track.addEventListener("pointercancel", (event) => drag?.id === event.pointerId && finish(true));
}
