/**
 * What differs between two disks. Stretches that both have at the same place of the same file, or that both have
 * as zeros, are equal without a look; all others are read and compared.
 */
import { constants, statSync } from "node:fs";
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { StorageError } from "@libstorage/model";
import type { VolumeExtent } from "@libstorage/model";
import type { ChangeAbilities, OpContext, SnapshotRecord } from "../../core/driver.js";
import { checkUnused } from "./build.js";
import type { ImageBuilder, Original } from "./build.js";
import { regionsOf } from "./regions.js";
import type { Region } from "./regions.js";
import type { ImageStore } from "./store.js";

/** Stretches are told to this precision. */
const BLOCK = 4096;
const CHUNK_BYTES = 256 * BLOCK;

/** Reads stretches of files that a disk is made of. */
class Reader {
  readonly #handles = new Map<string, FileHandle>();

  async read({ at, length }: Region, into: Buffer): Promise<Buffer> {
    const piece = into.subarray(0, length);
    if (at === undefined) return piece.fill(0);
    let handle = this.#handles.get(at.file);
    if (handle === undefined) {
      handle = await open(at.file, constants.O_RDONLY | constants.O_NOFOLLOW);
      this.#handles.set(at.file, handle);
    }
    for (let done = 0; done < length;) {
      const { bytesRead } = await handle.read(piece, done, length - done, at.offset + done);
      // A raw file may end within its last sector.
      if (bytesRead === 0) return piece.fill(0, done);
      done += bytesRead;
    }
    return piece;
  }

  async close(): Promise<void> {
    for (const handle of this.#handles.values()) await handle.close();
  }
}

/** Joins what follows one another and is of one kind. */
class Joiner {
  #last: VolumeExtent | undefined;

  *add(next: VolumeExtent): Generator<VolumeExtent, void> {
    const last = this.#last;
    if (last !== undefined && last.kind === next.kind && last.offset + last.length === next.offset)
      this.#last = { ...last, length: last.length + next.length };
    else {
      yield* this.end();
      this.#last = next;
    }
  }

  *end(): Generator<VolumeExtent, void> {
    if (this.#last !== undefined) yield this.#last;
    this.#last = undefined;
  }
}

function part({ start, length, at }: Region, from: number, to: number): Region {
  const end = Math.min(start + length, to);
  const rest = { start: from, length: end - from };
  if (at === undefined) return rest;
  return { ...rest, at: { file: at.file, offset: at.offset + from - start } };
}

/** Regions of two disks side by side, cut where either has a border. The shorter one goes on with zeros. */
async function* sideBySide(
  base: AsyncIterator<Region>,
  target: AsyncIterable<Region>,
): AsyncGenerator<readonly [base: Region, target: Region], void> {
  let below: Region | undefined;
  for await (const region of target) {
    const end = region.start + region.length;
    for (let at = region.start; at < end;) {
      while (below === undefined || below.start + below.length <= at) {
        const next = await base.next();
        below =
          next.done === true ? { start: at, length: Number.MAX_SAFE_INTEGER - at } : next.value;
      }
      const to = Math.min(end, below.start + below.length, at + CHUNK_BYTES);
      yield [part(below, at, to), part(region, at, to)];
      at = to;
    }
  }
}

function isSamePlace(a: Region, b: Region, fileID: (path: string) => string): boolean {
  if (a.at === undefined || b.at === undefined) return a.at === b.at;
  return a.at.offset === b.at.offset && fileID(a.at.file) === fileID(b.at.file);
}

/** Two stretches of one length, block by block. */
function* differences(
  offset: number,
  before: Buffer,
  now: Buffer,
  zeros: Buffer,
): Generator<VolumeExtent, void> {
  for (let at = 0; at < now.length; at += BLOCK) {
    const length = Math.min(BLOCK, now.length - at);
    const block = now.subarray(at, at + length);
    if (block.equals(before.subarray(at, at + length))) continue;
    const kind = block.equals(zeros.subarray(0, length)) ? "zero" : "data";
    yield { offset: offset + at, length, kind };
  }
}

async function* compared(
  base: AsyncGenerator<Region, void>,
  target: AsyncIterable<Region>,
): AsyncGenerator<VolumeExtent, void> {
  const ids = new Map<string, string>();
  const fileID = (path: string): string => {
    const known = ids.get(path);
    if (known !== undefined) return known;
    const { dev, ino } = statSync(path);
    ids.set(path, `${dev}:${ino}`);
    return `${dev}:${ino}`;
  };
  const reader = new Reader();
  const joiner = new Joiner();
  const [left, right] = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)];
  const zeros = Buffer.alloc(BLOCK);
  try {
    for await (const [before, now] of sideBySide(base, target)) {
      if (isSamePlace(before, now, fileID)) continue;
      const pieces = [await reader.read(before, left), await reader.read(now, right)] as const;
      for (const extent of differences(now.start, ...pieces, zeros)) yield* joiner.add(extent);
    }
    yield* joiner.end();
  } finally {
    await base.return();
    await reader.close();
  }
}

async function* withData(target: AsyncIterable<Region>): AsyncGenerator<VolumeExtent, void> {
  const joiner = new Joiner();
  for await (const { start, length, at } of target)
    if (at !== undefined) yield* joiner.add({ offset: start, length, kind: "data" });
  yield* joiner.end();
}

function refuseUnreadable({ what, id, note }: Original): void {
  const why =
    note.isEncrypted === true
      ? "is encrypted"
      : note.inner === undefined
        ? undefined
        : "lies inside the volume's file, where it cannot be mapped; use snapshots of another kind (the service's key snapshots)";
  if (why === undefined) return;
  throw new StorageError(
    "unimplemented",
    `what differs from ${what} ${id} cannot be told: it ${why}`,
    {
      resourceID: id,
    },
  );
}

export function imageChanges(store: ImageStore, builder: ImageBuilder): ChangeAbilities {
  const regions = (original: Original, context: OpContext): AsyncGenerator<Region, void> => {
    refuseUnreadable(original);
    return regionsOf(builder.opened(original), context);
  };
  const changes = (
    target: Original,
    since: SnapshotRecord | undefined,
    context: OpContext,
  ): AsyncGenerator<VolumeExtent, void> => {
    const now = regions(target, context);
    if (since === undefined) return withData(now);
    return compared(regions(store.originalSnapshot(since.id), context), now);
  };
  return {
    async *volumeChanges({ id }, since, context) {
      const original = store.originalVolume(id);
      await checkUnused(original, builder.imageOf(original).path, "compared", context);
      yield* changes(original, since, context);
    },
    snapshotChanges: ({ id }, since, context) =>
      changes(store.originalSnapshot(id), since, context),
  };
}
