/** A file that is written from a stream, with holes where the stream has zeros. */
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { StorageError } from "@libstorage/model";

export interface SparseOptions {
  /** More is an error. */
  readonly mostBytes?: number;
  /** A shorter file ends with zeros up to here. Every file ends at a whole sector of 512 bytes. */
  readonly least?: number;
}

const SECTOR = 512;

/** What a hole is made of; smaller ones are not worth their place in a file's map. */
const BLOCK = 4096;
const ZEROS = Buffer.alloc(BLOCK);

/** Stretches of a chunk that are not all zeros, as `[start, end]`. */
export function* stretches(chunk: Uint8Array): Generator<readonly [number, number]> {
  let start: number | undefined;
  for (let at = 0; at < chunk.length; at += BLOCK) {
    const part = chunk.subarray(at, Math.min(at + BLOCK, chunk.length));
    const isZero = Buffer.compare(part, ZEROS.subarray(0, part.length)) === 0;
    if (isZero && start !== undefined) yield [start, at];
    if (isZero) start = undefined;
    else start ??= at;
  }
  if (start !== undefined) yield [start, chunk.length];
}

/** Puts all of a piece where it belongs; one write may take less. */
async function writeAll(file: FileHandle, piece: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < piece.length;) {
    const { bytesWritten } = await file.write(piece, done, piece.length - done, position + done);
    done += bytesWritten;
  }
}

/** @param path nothing may be there @returns how many bytes it has */
export async function writeSparse(
  path: string,
  bytes: AsyncIterable<Uint8Array>,
  { mostBytes = Number.MAX_SAFE_INTEGER, least = 0 }: SparseOptions = {},
): Promise<number> {
  const file = await open(path, "wx", 0o600);
  try {
    let total = 0;
    for await (const chunk of bytes) {
      if (total + chunk.length > mostBytes)
        throw new StorageError(
          "invalid-argument",
          `there are more than the ${mostBytes} bytes that may be taken`,
          { mostBytes },
        );
      for (const [start, end] of stretches(chunk))
        await writeAll(file, chunk.subarray(start, end), total + start);
      total += chunk.length;
    }
    await file.truncate(Math.max(Math.ceil(total / SECTOR) * SECTOR, least));
    return total;
  } finally {
    await file.close();
  }
}
