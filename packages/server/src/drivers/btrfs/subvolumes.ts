/** Subvolumes as data folders. */
import { lstatSync } from "node:fs";
import type { Stats } from "node:fs";
import { realpath } from "node:fs/promises";
import { StorageError } from "@libstorage/model";
import type { Ability, DriverContext, OpContext, VolumeRecord } from "../../core/driver.js";
import type { Backing, IdleVolumes, Purpose } from "../folders/backing.js";
import { abilitiesOf } from "./abilities.js";
import { createSubvolume, deleteSubvolume, snapshotSubvolume, subvolumesBelow } from "./btrfs.js";
import { CONTENT_FIELD } from "../folders/content.js";
import { placesBelow } from "./places.js";
import type { Quota } from "./quota.js";
import { isReadOnly, isSubvolume } from "./stats.js";
import { SubvolumeStreams } from "./streams.js";
import { isOnOneFileSystem, leftSent, transfer } from "./transfer.js";

export class Subvolumes implements Backing {
  readonly isAtomic = true;
  readonly streams: SubvolumeStreams;
  readonly #root: string;
  readonly #quota: Quota;
  readonly #context: DriverContext;

  /** @param context lives as long as the driver */
  constructor(root: string, quota: Quota, context: DriverContext) {
    this.#root = root;
    this.#quota = quota;
    this.#context = context;
    this.streams = new SubvolumeStreams({
      root,
      discard: (path, own) => this.discard(path, own),
      checkNoneBelow: (path, own) => this.#checkNoneBelow(path, own),
      limit: (path, sizeBytes, own) => this.#quota.limit(path, sizeBytes, true, own),
      pathsWithin: (folder, paths) => this.#pathsWithin(folder, paths),
    });
  }

  async make(path: string, purpose: Purpose, context: OpContext): Promise<void> {
    await this.discard(path, context);
    await createSubvolume(context, path);
    await this.#quota.limit(path, purpose.sizeBytes, false, context);
  }

  async copy(from: string, to: string, purpose: Purpose, context: OpContext): Promise<void> {
    const isSnapshot = purpose.what === "snapshot";
    // One of another service may be anywhere.
    const isNear = from.startsWith(`${this.#root}/`) || isOnOneFileSystem(from, to);
    if (isNear) await this.#snapshot(from, to, isSnapshot, context);
    else {
      await this.#checkNoneBelow(from, context);
      await transfer(from, to, (path, own) => this.discard(path, own), context);
    }
    const stats = lstatSync(to, { throwIfNoEntry: false });
    if (stats === undefined || !isSubvolume(stats) || isReadOnly(to) !== isSnapshot)
      throw new StorageError("internal", `btrfs made no snapshot of ${from} at ${to}`, {
        path: to,
      });
    // Nobody writes into a snapshot, so that its limit does not matter.
    if (!isSnapshot) await this.#quota.limit(to, purpose.sizeBytes, true, context);
    if (isNear) context.progress(1, 1, "steps");
  }

  async #snapshot(
    from: string,
    to: string,
    isSnapshot: boolean,
    context: OpContext,
  ): Promise<void> {
    context.progress(0, 1, "steps");
    // Looked at meanwhile: it costs as long as the snapshot itself, and hardly ever finds any.
    const found = await Promise.allSettled([
      snapshotSubvolume(context, from, to, isSnapshot),
      this.#checkNoneBelow(from, context),
    ]);
    for (const one of found) if (one.status === "rejected") throw one.reason;
  }

  leftovers(volumes: readonly VolumeRecord[]): readonly string[] {
    const needed = new Set(volumes.flatMap(({ fields }) => fields[CONTENT_FIELD] ?? []));
    return [...leftSent(this.#root), ...this.streams.leftovers(needed)];
  }

  /** A snapshot holds empty folders in the place of subvolumes: their data would be missed too late. */
  async #checkNoneBelow(path: string, context: OpContext): Promise<void> {
    // A read-only one was made without them.
    if (isReadOnly(path)) return;
    const below = await subvolumesBelow(context, path);
    if (below.length === 0) return;
    const names = this.#pathsWithin(path, below).slice(0, 3).join(", ");
    throw new StorageError(
      "failed-precondition",
      `${path} has subvolumes in it (${names}), which a snapshot or copy would leave out; make them plain folders or delete them`,
      { path },
    );
  }

  /** Where paths in the file system stand on this host; those that are not below `folder` are left out. */
  #pathsWithin(folder: string, inFileSystem: readonly string[]): string[] {
    const placeOf = placesBelow(folder);
    return inFileSystem.flatMap((path) => placeOf(path) ?? []);
  }

  async discard(path: string, context: OpContext): Promise<void> {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return;
    if (!isSubvolume(stats)) await context.files.removeTree(path);
    else {
      await this.#delete(path, context);
      this.#quota.clearStaleLater(this.#context);
    }
  }

  /** What is gone meanwhile is fine: leftovers are removed beside recovery. */
  async #delete(path: string, context: OpContext): Promise<void> {
    try {
      await this.#deleteAll(path, context);
    } catch (error) {
      if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) throw error;
    }
  }

  /** Deletes what is in a subvolume first, when the kernel says that there is something. */
  async #deleteAll(path: string, context: OpContext): Promise<void> {
    if (await deleteSubvolume(context, path)) return;
    for (const inner of this.#pathsWithin(path, await subvolumesBelow(context, path))) {
      // A name with a line break comes apart in the list, and may then be that of something else.
      const isItself = (await realpath(inner).catch(() => "")) === inner;
      const stats = lstatSync(inner, { throwIfNoEntry: false });
      if (isItself && stats !== undefined && isSubvolume(stats)) await this.#delete(inner, context);
    }
    if (await deleteSubvolume(context, path)) return;
    // Names that came apart: an empty subvolume goes as a folder does.
    await context.files.removeTree(path);
  }

  async limit(
    path: string,
    { sizeBytes }: VolumeRecord,
    projectID: number | undefined,
    context: OpContext,
  ): Promise<number | undefined> {
    await this.#quota.limit(path, sizeBytes, true, context);
    return projectID;
  }

  useVolumes(idle: () => Promise<IdleVolumes>): void {
    this.#quota.limits.useVolumes(idle);
  }

  listed(volumes: readonly VolumeRecord[]): Promise<void> {
    return this.#quota.begin(volumes);
  }

  flawOf(path: string, stats: Stats): string | undefined {
    if (isSubvolume(stats)) return undefined;
    return `${path} is a plain folder, not a subvolume; move its content into one: btrfs subvolume create`;
  }

  abilities(context: OpContext): Promise<readonly Ability[]> {
    return abilitiesOf(this.#root, this.#quota, context);
  }

  async close(): Promise<void> {
    await this.#quota.close();
  }
}
