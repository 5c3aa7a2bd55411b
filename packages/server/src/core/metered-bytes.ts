/** Bytes on their way: counted, hashed, bounded, and at the end compared with what they should have been. */
import { createHash } from "node:crypto";
import { Transform } from "node:stream";
import type { TransformCallback } from "node:stream";
import type { ContentSummary } from "@libstorage/model";
import type { OpContext } from "./driver.js";

export interface Metering {
  /** How many there will be, about; without it no progress is told. */
  readonly total?: number | undefined;
  readonly progress: OpContext["progress"];
  /** Called for each chunk with the bytes so far. @throws when they are too many */
  readonly check?: (bytes: number) => void;
  /** Called when all have passed, before the reader is told of the end. @throws when they are not what they should be */
  readonly checkEnd?: (summary: ContentSummary) => void;
}

/** How often progress is told. */
const TELL_MS = 200;

export class MeteredBytes extends Transform {
  readonly #hash = createHash("sha256");
  readonly #metering: Metering;
  #bytes = 0;
  #told = 0;
  #summary: ContentSummary | undefined;

  constructor(metering: Metering) {
    super({ highWaterMark: 256 * 1024 });
    this.#metering = metering;
    this.#tell();
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** @throws {Error} before the end */
  get summary(): ContentSummary {
    if (this.#summary === undefined) throw new Error("the stream has not ended");
    return this.#summary;
  }

  #tell(): void {
    const { total, progress } = this.#metering;
    this.#told = performance.now();
    if (total !== undefined) progress(this.#bytes, Math.max(total, this.#bytes), "bytes");
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#bytes += chunk.length;
    try {
      this.#metering.check?.(this.#bytes);
    } catch (error) {
      done(error as Error);
      return;
    }
    this.#hash.update(chunk);
    if (performance.now() - this.#told > TELL_MS) this.#tell();
    done(null, chunk);
  }

  override _flush(done: TransformCallback): void {
    this.#summary = { bytes: this.#bytes, sha256: this.#hash.digest("hex") };
    this.#tell();
    try {
      this.#metering.checkEnd?.(this.#summary);
      done();
    } catch (error) {
      done(error as Error);
    }
  }
}
