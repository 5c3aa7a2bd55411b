/**
 * Images from outside: files in the folder `import` of the root, which an operator puts there. Their format is
 * stated by whoever asks; a qcow2 is looked at before any tool opens it, and nothing but bytes is taken over.
 */
import { createHash } from "node:crypto";
import { createReadStream, lstatSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { StorageError, formatSize } from "@libstorage/model";
import type { OpContext, VolumeRecord } from "../../core/driver.js";
import { isId } from "../folders/ids.js";
import type { Format } from "./layers.js";
import { qemuFormat } from "./layers.js";
import { isSound } from "./qemu-img.js";
import type { Image } from "./qemu-img.js";
import { objectionTo, readHead, readQcow2Header } from "../../images/qcow2-header.js";

/** The folder below the root. */
export const IMPORT_FOLDER = "import";

const FORMATS: readonly string[] = ["raw", "qcow2", "iso"];

/** What the options of a new volume ask for. */
export interface Import {
  /** A file's name in the folder. */
  readonly name: string;
  readonly format: Format;
  /** In hex; undefined when it is not to be checked. */
  readonly sha256: string | undefined;
}

function refused(name: string, why: string): StorageError {
  return new StorageError("invalid-argument", `${name} cannot be imported: ${why}`, {
    import: name,
  });
}

/** @throws {StorageError} `invalid-argument` for options that make no sense */
export function importOf({ fields }: VolumeRecord): Import | undefined {
  const name = fields["import"];
  if (name === undefined) return undefined;
  const format = fields["importformat"];
  if (!isId(name))
    throw refused(
      JSON.stringify(name.slice(0, 140)),
      "it is no plain file name in the folder import",
    );
  if (format === undefined || !FORMATS.includes(format))
    throw refused(
      name,
      'its format has to be stated: set the option "importFormat" to raw, qcow2 or iso',
    );
  const sha256 = fields["sha256"]?.toLowerCase();
  if (sha256 !== undefined && !/^[\da-f]{64}$/.test(sha256))
    throw refused(name, "the option sha256 is no SHA-256 in hex");
  return { name, format: format as Format, sha256 };
}

export interface Imported {
  readonly image: Image;
  readonly sizeBytes: number;
}

/**
 * Gives the file a second name in the volume's folder, so that it stays what was looked at, and looks at it.
 * @throws {StorageError} `not-found`, or `invalid-argument` saying why it is refused
 */
export async function openImport(
  { name, format, sha256 }: Import,
  {
    root,
    folder,
    maxBytes,
  }: { readonly root: string; readonly folder: string; readonly maxBytes: number },
  context: OpContext,
): Promise<Imported> {
  const from = join(root, IMPORT_FOLDER, name);
  const stats = lstatSync(from, { throwIfNoEntry: false });
  if (stats === undefined)
    throw new StorageError("not-found", `there is no file ${from} to import`, { path: from });
  if (!stats.isFile()) throw refused(name, "it is not a plain file");
  const path = join(folder, "import");
  await context.files.hardLink(from, path, { isSyncDeferred: true });
  const sizeBytes = sizeOf(path, name, format, maxBytes);
  if (sizeBytes > maxBytes)
    throw refused(
      name,
      `it has ${formatSize(sizeBytes)} and may have ${formatSize(maxBytes)} (maxImportSize)`,
    );
  if (sha256 !== undefined) await checkDigest(path, name, sha256, context);
  return { image: { path, format: qemuFormat(format) }, sizeBytes };
}

/**
 * The size of a disk, from what its file says before any tool opens it.
 * @throws {StorageError} `invalid-argument` saying why the file is refused
 */
export function sizeOf(path: string, name: string, format: Format, maxBytes: number): number {
  const { size } = lstatSync(path);
  if (format === "iso" && !isISO(path))
    throw refused(name, "it has no ISO 9660 descriptor at its sector 16");
  // QEMU counts sectors.
  if (format !== "qcow2") return Math.ceil(size / 512) * 512;
  try {
    const header = readQcow2Header(path);
    const objection = objectionTo(header, maxBytes);
    if (objection !== undefined) throw new Error(objection);
    return Number(header.sizeBytes);
  } catch (error) {
    throw refused(name, (error as Error).message);
  }
}

/** @throws {StorageError} `invalid-argument` for a qcow2 that does not hold all that it says */
export async function needSound(image: Image, name: string, context: OpContext): Promise<void> {
  if (image.format !== "qcow2" || (await isSound(image, context))) return;
  throw refused(
    name,
    'its tables are damaged, or name what is not in the file, as when it was cut short on its way; compare its size and SHA-256 with the original\'s, and look at that with "qemu-img check"',
  );
}

const ISO_DESCRIPTOR = 32_768;

/** A descriptor of type 1 begins so. @see ECMA-119, 8.4 */
function isISO(path: string): boolean {
  const head = readHead(path, ISO_DESCRIPTOR + 6);
  return head.toString("latin1", ISO_DESCRIPTOR) === "\x01CD001";
}

async function checkDigest(path: string, name: string, wanted: string, context: OpContext) {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash, { signal: context.signal });
  const found = hash.digest("hex");
  if (found !== wanted) throw refused(name, `its SHA-256 is ${found}, not ${wanted}`);
}
