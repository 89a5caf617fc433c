/**
 * Takes out of a guest's output what a terminal would act on beyond the screen: the clipboard, the
 * title, links, and every question that a terminal answers by typing. The same rules as
 * `sandbox_rpc/console/filter.py`, and held to the same examples.
 *
 * Only whole sequences and whole characters go through, so that what is dropped never lets its two
 * sides grow together to something else.
 */
const ESC = 0x1b;
const BELL = 0x07;
/** CAN and SUB break off any sequence. */
const ABORTS = new Set([0x18, 0x1a]);
/** ENQ is answered by typing; DEL does nothing, also inside a sequence. */
const DROPPED = new Set([0x05, 0x7f]);
/** ESC and one of these begin OSC, DCS, SOS, PM, APC. */
const STRINGS = new Set(Buffer.from("]PX^_"));
const CSI = 0x5b;
/** ESC Z asks for attributes; ESC % leaves UTF-8, after which parts of characters are controls. */
const REFUSED = new Set(Buffer.from("Z%"));
/** After ESC: private mark, parameters, intermediates, final byte. */
const CONTROL = /^\[([<-?]?)[0-9:;]*([ -/]*)([@-~])$/;
/** Final bytes of what a terminal answers, whatever stands before. */
const REPORTS = new Set("cntx");
/** The same with intermediates: modes, presentation, checksums, locators, colours; and printing. */
const QUESTIONS = new Set(["$p", "$u", "$w", "&u", "*y", "'|", "#|", "#R", "i"]);
/** With a private mark: version, keyboard protocol, graphics, key modifiers. */
const PRIVATE = new Set([">q", "?u", ">u", "<u", "=u", "?S", "?m"]);
/** Bytes of a sequence that does not end; then it is dropped and text is text again. */
const MAX_SEQUENCE = 4096;

export class Filter {
  private pending: number[] = [];
  private readonly character = new Character();

  /** The part of `data`, and of what was held back before, that may be shown. */
  feed(data: Uint8Array): Uint8Array {
    const out: number[] = [];
    for (const byte of data) this.take(byte, out);
    return Uint8Array.from(out);
  }

  private take(byte: number, out: number[]): void {
    const kind = this.pending[1] ?? 0;
    if (STRINGS.has(kind)) {
      this.takeString(byte);
      return;
    }
    if (byte >= 0x80) {
      // No sequence has such a byte: one that was begun is none.
      this.pending = [];
      this.character.take(byte, out);
      return;
    }
    this.character.end(out);
    const inside = this.pending.length > 0;
    if (byte === ESC) this.pending = [ESC];
    else if (inside && ABORTS.has(byte)) this.pending = [];
    else if (byte < 0x20 || byte === 0x7f) {
      // A terminal obeys it at once, and the sequence around it goes on.
      if (!DROPPED.has(byte)) out.push(byte);
    } else if (inside) this.takeSequence(kind, byte, out);
    else out.push(byte);
  }

  private takeString(byte: number): void {
    const ends = byte === BELL || (byte === 0x5c && this.pending.at(-1) === ESC);
    this.pending.push(byte);
    if (ends || ABORTS.has(byte) || this.pending.length > MAX_SEQUENCE) this.pending = [];
  }

  private takeSequence(kind: number, byte: number, out: number[]): void {
    const { pending } = this;
    pending.push(byte);
    if (pending.length > MAX_SEQUENCE) this.pending = [];
    else if (kind === 0 && (byte === CSI || STRINGS.has(byte))) return;
    else if (byte >= (kind === CSI ? 0x40 : 0x30)) {
      if (kind === CSI ? shows(pending) : !REFUSED.has(pending[1] ?? 0)) out.push(...pending);
      this.pending = [];
    }
  }
}

/** Whether a control sequence is one, and only draws. */
function shows(sequence: readonly number[]): boolean {
  const found = CONTROL.exec(String.fromCharCode(...sequence.slice(1)));
  if (!found) return false;
  const [, mark = "", middle = "", final = ""] = found;
  return !(
    REPORTS.has(final) ||
    QUESTIONS.has(middle + final) ||
    PRIVATE.has(mark + middle + final)
  );
}

/**
 * Characters beyond ASCII, in UTF-8. The controls among them (C1) are those that ESC and a letter
 * are, so they are dropped; and so is a byte that would be one to a terminal without UTF-8, unless
 * it is a part of a character.
 */
class Character {
  /** Bytes that are still to come, and the range of the next one. */
  private missing = 0;
  private low = 0x80;
  private high = 0xbf;
  /** C2 is held: with the next byte it is a control, or none. */
  private held = false;

  take(byte: number, out: number[]): void {
    if (this.missing > 0 && byte >= this.low && byte <= this.high) {
      if (!this.held) out.push(byte);
      else if (byte >= 0xa0) out.push(0xc2, byte);
      this.held = false;
      this.missing--;
      this.low = 0x80;
      this.high = 0xbf;
      return;
    }
    this.end(out);
    this.missing = byte < 0xc2 || byte > 0xf4 ? 0 : byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
    // Without these ranges a control could be written longer than it is.
    this.low = byte === 0xe0 ? 0xa0 : byte === 0xf0 ? 0x90 : 0x80;
    this.high = byte === 0xed ? 0x9f : byte === 0xf4 ? 0x8f : 0xbf;
    this.held = byte === 0xc2;
    if (!this.held && byte >= 0xa0) out.push(byte);
  }

  /** Something else comes: what is incomplete stays so. */
  end(out: number[]): void {
    if (this.held) out.push(0xc2);
    this.held = false;
    this.missing = 0;
  }
}
