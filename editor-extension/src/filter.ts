/**
 * Takes out of a guest's output what a terminal would act on beyond the screen: the clipboard, the
 * title, links, and every question that a terminal answers by typing. The same rules as
 * `sandbox_rpc/console/filter.py`, and held to the same examples.
 */
const ESC = 0x1b;
const ENQUIRY = 0x05;
const BELL = 0x07;
/** ESC and one of these begin OSC, DCS, SOS, PM, APC. */
const STRINGS = new Set(Buffer.from("]PX^_"));
/** Final bytes of what a terminal answers. */
const REPORTS = new Set(Buffer.from("cntx"));
/** Bytes of a sequence that does not end; then it is dropped and text is text again. */
const MAX_SEQUENCE = 4096;

export class Filter {
  private pending: number[] = [];

  /** The part of `data`, and of what was held back before, that may be shown. */
  feed(data: Uint8Array): Uint8Array {
    const out: number[] = [];
    for (const byte of data) this.take(byte, out);
    return Uint8Array.from(out);
  }

  private take(byte: number, out: number[]): void {
    const pending = this.pending;
    if (pending.length === 0) {
      if (byte === ESC) pending.push(byte);
      else if (byte !== ENQUIRY) out.push(byte);
      return;
    }
    if (byte === 0x18 || byte === 0x1a) {
      // CAN and SUB break off any sequence.
      this.pending = [];
      return;
    }
    pending.push(byte);
    const kind = pending[1] ?? 0;
    if (pending.length > MAX_SEQUENCE) this.pending = [];
    else if (STRINGS.has(kind)) this.takeString(byte);
    else if (kind === 0x5b) this.takeControl(byte, out);
    else if (byte === ESC) this.pending = [ESC];
    else if (byte < 0x20 || byte > 0x2f) {
      // ESC Z is DECID, an old request for attributes.
      if (byte !== 0x5a) out.push(...pending);
      this.pending = [];
    }
  }

  private takeString(byte: number): void {
    if (byte === BELL || (byte === 0x5c && this.pending.at(-2) === ESC)) this.pending = [];
  }

  private takeControl(byte: number, out: number[]): void {
    if (this.pending.length === 2) return;
    if (byte === ESC) this.pending = [ESC];
    else if (byte >= 0x40 && byte <= 0x7e) {
      if (!asks(this.pending)) out.push(...this.pending);
      this.pending = [];
    }
  }
}

function asks(sequence: readonly number[]): boolean {
  const final = sequence.at(-1) ?? 0;
  const kind = sequence[2] ?? 0;
  if (REPORTS.has(final)) return true;
  if (final === 0x70 && sequence.includes(0x24)) return true; // DECRQM, the state of a mode
  if (final === 0x71 && kind === 0x3e) return true; // XTVERSION
  return final === 0x75 && [0x3f, 0x3e, 0x3c, 0x3d].includes(kind); // keyboard protocol
}
