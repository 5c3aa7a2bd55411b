/**
 * JSON values one after another, as they come out of a stream: several in one piece, or one over many. What is no
 * JSON costs the rest of its line, and nothing after it.
 */
import { TokenParser, TokenType, Tokenizer } from "@streamparser/json";

export interface JsonLimits {
  /** Of one value, and of what is read without becoming one. */
  readonly bytes: number;
  readonly depth: number;
}

export type JsonItem = { readonly value: unknown } | { readonly problem: string };

const NEWLINE = 0x0a;

/** QEMU's words for what is too much. */
const TOO_LONG = "JSON token size limit exceeded";
const TOO_DEEP = "JSON nesting depth limit exceeded";

export class JsonValues {
  readonly #limits: JsonLimits;
  #tokenizer: Tokenizer = new Tokenizer({ separator: "" });
  #utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  #depth = 0;
  #bytes = 0;
  /** Whether the rest of the line is passed over. */
  #isLost = false;
  #items: JsonItem[] = [];

  constructor(limits: JsonLimits) {
    this.#limits = limits;
    this.#reset();
  }

  /** The values that are whole with this piece, and what was wrong, in their order. */
  read(piece: Uint8Array): readonly JsonItem[] {
    this.#items = [];
    for (let from = 0; from < piece.length;) {
      const end = piece.indexOf(NEWLINE, from);
      const to = end === -1 ? piece.length : end + 1;
      this.#readInLine(piece.subarray(from, to));
      if (end !== -1) this.#endLine();
      from = to;
    }
    return this.#items;
  }

  /** To be called at the end of the stream. @returns what was cut off, in words */
  end(): string | undefined {
    return this.#depth > 0 && !this.#isLost ? "JSON parse error, the input ended early" : undefined;
  }

  #reset(): void {
    this.#depth = 0;
    this.#bytes = 0;
    this.#utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    const tokenizer = new Tokenizer({ separator: "" });
    const parser = new TokenParser({ paths: ["$"], separator: "" });
    const fail = ({ message }: Error): void => this.#lose(`JSON parse error, ${message}`);
    tokenizer.onError = fail;
    parser.onError = fail;
    parser.onValue = ({ value }) => {
      this.#items.push({ value });
      this.#bytes = 0;
    };
    tokenizer.onToken = (token) => {
      if (this.#isLost) return;
      if (token.token === TokenType.LEFT_BRACE || token.token === TokenType.LEFT_BRACKET)
        this.#depth += 1;
      if (token.token === TokenType.RIGHT_BRACE || token.token === TokenType.RIGHT_BRACKET)
        this.#depth -= 1;
      if (this.#depth > this.#limits.depth) this.#lose(TOO_DEEP);
      else parser.write(token);
    };
    this.#tokenizer = tokenizer;
  }

  #lose(problem: string): void {
    if (this.#isLost) return;
    this.#isLost = true;
    this.#items.push({ problem });
  }

  #readInLine(piece: Uint8Array): void {
    if (this.#isLost) return;
    this.#bytes += piece.length;
    if (this.#bytes > this.#limits.bytes + piece.length) {
      this.#lose(TOO_LONG);
      return;
    }
    let text: string;
    try {
      text = this.#utf8.decode(piece, { stream: true });
    } catch {
      this.#lose("JSON parse error, the input is not UTF-8");
      return;
    }
    this.#tokenizer.write(text);
    if (this.#bytes > this.#limits.bytes) this.#lose(TOO_LONG);
  }

  #endLine(): void {
    if (this.#isLost) {
      this.#isLost = false;
      this.#reset();
    } else if (this.#depth === 0) this.#bytes = 0;
  }
}
