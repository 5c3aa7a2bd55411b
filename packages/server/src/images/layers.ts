/**
 * What lies below a qcow2, as its header says. Only layers that a driver has made beside it are followed:
 * files `N.qcow2` or `N.raw` in the same folder, whose numbers fall.
 */
import { basename, dirname, join } from "node:path";
import { StorageError } from "@libstorage/model";
import { readQcow2Header } from "./qcow2-header.js";

export const LAYER = /^(\d{1,6})\.(raw|qcow2)$/;

/** The layers below a disk, the uppermost first. @throws {StorageError} for a chain that is not ours */
export function layersBelow(disk: string): string[] {
  const layers: string[] = [];
  let current = disk;
  let before = Number.MAX_SAFE_INTEGER;
  while (current.endsWith(".qcow2")) {
    const { backingFile, hasDataFile } = headerOf(current);
    if (hasDataFile) throw foreign(current, "keeps its data in another file");
    if (backingFile === undefined) return layers;
    const number = Number(LAYER.exec(backingFile)?.[1] ?? Number.NaN);
    // Numbers that fall make a chain without a loop.
    if (!(number < before))
      throw foreign(current, `names the backing file ${JSON.stringify(backingFile)}`);
    before = number;
    current = join(dirname(disk), basename(backingFile));
    layers.push(current);
  }
  return layers;
}

function headerOf(path: string) {
  try {
    return readQcow2Header(path);
  } catch (error) {
    throw foreign(path, `cannot be read as qcow2: ${(error as Error).message}`);
  }
}

function foreign(path: string, why: string): StorageError {
  return new StorageError(
    "failed-precondition",
    `the image ${path} ${why}, which this server has not made; it is left alone`,
    { path },
  );
}
