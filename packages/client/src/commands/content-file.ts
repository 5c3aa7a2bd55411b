/** Files that hold the content of a volume. */
import { createReadStream, createWriteStream } from "node:fs";
import { lstat, open, rename, rm } from "node:fs/promises";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { StorageError } from "@libstorage/model";

/** Stands for standard input or output. */
export const STANDARD = "-";

export interface ContentFile {
  readonly bytes: Readable;
  readonly lengthBytes?: number;
}

/** @throws {StorageError} `invalid-argument` for what is no file */
export async function openFile(path: string): Promise<ContentFile> {
  if (path === STANDARD) return { bytes: Readable.from(process.stdin, { objectMode: false }) };
  try {
    const file = await open(path, "r");
    const stats = await file.stat();
    const bytes = createReadStream("", { fd: file, highWaterMark: 1024 * 1024 });
    return { bytes, ...(stats.isFile() && { lengthBytes: stats.size }) };
  } catch (error) {
    throw failed(`cannot read ${path}`, error);
  }
}

function failed(what: string, error: unknown): StorageError {
  const why = error instanceof Error ? error.message : String(error);
  return new StorageError("invalid-argument", `${what}: ${why}`, {}, { cause: error });
}

/** Writes a file that has its name only when it is whole. @throws {StorageError} */
export async function writeFile(
  path: string,
  bytes: Readable,
  mayReplace: boolean,
  onBytes: (bytes: number) => void,
): Promise<void> {
  let count = 0;
  const counted = async function* (): AsyncGenerator<Buffer, void> {
    for await (const chunk of bytes as AsyncIterable<Buffer>) {
      count += chunk.length;
      onBytes(count);
      yield chunk;
    }
  };
  if (path === STANDARD) {
    await pipeline(counted, process.stdout, { end: false });
    return;
  }
  const isThere = await lstat(path).then(
    () => true,
    () => false,
  );
  if (isThere && !mayReplace)
    throw new StorageError("already-exists", `${path} is there already; replace it with --force`);
  const part = `${path}.part`;
  try {
    await pipeline(counted, createWriteStream(part, { mode: 0o600, flush: true } as object));
    await rename(part, path);
  } catch (error) {
    await rm(part, { force: true });
    throw error instanceof StorageError ? error : failed(`cannot write ${path}`, error);
  }
}
