/**
 * Subvolumes as streams of btrfs send. What comes in is received inside a folder that btrfs receive cannot
 * leave. A content with an id is kept read-only beside the volume that was made of it, so that an increment of
 * it can be received later; kept ones share their blocks with the volume.
 */
import { randomUUID } from "node:crypto";
import { lstatSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { ContentDoor, ContentIn, ContentWish, OpContext } from "../../core/driver.js";
import { TEMPORARY_PREFIX } from "../../core/files.js";
import { Locks } from "../../core/locks.js";
import { usedBytes } from "../folders/du.js";
import type { FolderStreams, Purpose } from "../folders/backing.js";
import { checkFits } from "../folders/fitting.js";
import {
  createSubvolume,
  receiveStream,
  sendStream,
  snapshotSubvolume,
  subvolumeUUIDs,
} from "./btrfs.js";
import { isReadOnly, isSubvolume } from "./stats.js";
import { SENT_PREFIX, discardSurely, sending } from "./transfer.js";
import type { Discard } from "./transfer.js";

const KEPT_FOLDER = "received";
/** A kept content, in a folder named after its id. */
const BASE = "base";
const RECEIVED_PREFIX = `${TEMPORARY_PREFIX}received-`;
const CONTENT_ID = /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/;

const CLEAR_MS = 10 * 60_000;

/** What the streams need of the volumes they belong to. */
export interface StreamParts {
  readonly root: string;
  readonly discard: Discard;
  checkNoneBelow(path: string, context: OpContext): Promise<void>;
  limit(path: string, sizeBytes: number, context: OpContext): Promise<void>;
  /** Where paths in the file system stand below a folder of this host. */
  pathsWithin(folder: string, inFileSystem: readonly string[]): string[];
}

function checkContentID(id: string): string {
  if (CONTENT_ID.test(id)) return id;
  throw new StorageError("invalid-argument", "the id of a btrfs content is a UUID", {
    contentID: id,
  });
}

export class SubvolumeStreams implements FolderStreams {
  readonly formats = ["btrfs-send"] as const;
  readonly canReadHeld = true;
  readonly #parts: StreamParts;
  readonly #keptFolder: string;
  /** By the folder that is received in. */
  readonly #locks = new Locks();
  readonly #receiving = new Set<string>();

  constructor(parts: StreamParts) {
    this.#parts = parts;
    this.#keptFolder = join(parts.root, KEPT_FOLDER);
  }

  async send(
    path: string,
    what: Purpose["what"],
    wish: ContentWish,
    open: ContentDoor,
    context: OpContext,
  ): Promise<void> {
    if (what === "snapshot") {
      await this.#sendSnapshot(path, wish, open, context);
      return;
    }
    await this.#parts.checkNoneBelow(path, context);
    const sent = join(this.#parts.root, `${SENT_PREFIX}${randomUUID()}`);
    sending.add(sent);
    try {
      await snapshotSubvolume(context, path, sent, true);
      const lengthBytes = await usedBytes(context, sent);
      const to = open({ format: "btrfs-send", ...(lengthBytes !== undefined && { lengthBytes }) });
      await sendStream(context, sent, undefined, to);
    } finally {
      const own = { ...context, signal: AbortSignal.timeout(CLEAR_MS) };
      await discardSurely(sent, this.#parts.discard, own);
      sending.delete(sent);
    }
  }

  async #sendSnapshot(path: string, { have }: ContentWish, open: ContentDoor, context: OpContext) {
    const { root } = this.#parts;
    const all = await subvolumeUUIDs(context, root);
    const at = (one: string): string | undefined => this.#parts.pathsWithin(root, [one])[0];
    const own = all.find((one) => at(one.path) === path);
    const wanted = new Set(have);
    const shelf = join(root, "snap");
    const parent = all
      .filter((one) => one !== own && wanted.has(one.contentID))
      .find((one) => at(one.path)?.startsWith(`${shelf}/`));
    // How much an increment has, nobody knows before.
    const lengthBytes = parent === undefined ? await usedBytes(context, path) : undefined;
    const to = open({
      format: "btrfs-send",
      ...(lengthBytes !== undefined && { lengthBytes }),
      ...(own !== undefined && { contentID: own.contentID }),
      ...(parent !== undefined && { parentID: parent.contentID }),
    });
    await sendStream(context, path, parent && at(parent.path), to);
  }

  async receive(
    to: string,
    purpose: Purpose,
    content: ContentIn,
    context: OpContext,
  ): Promise<void> {
    const { contentID, parentID } = content;
    if (contentID !== undefined) checkContentID(contentID);
    const folder =
      parentID === undefined
        ? join(this.#parts.root, `${RECEIVED_PREFIX}${basename(to)}`)
        : this.#folderOf(parentID);
    this.#receiving.add(folder);
    try {
      await this.#locks.run(folder, () => this.#receiveIn(folder, to, purpose, content, context));
    } finally {
      this.#receiving.delete(folder);
    }
  }

  #folderOf(parentID: string): string {
    const folder = join(this.#keptFolder, checkContentID(parentID));
    const stats = lstatSync(join(folder, BASE), { throwIfNoEntry: false });
    if (stats !== undefined && isSubvolume(stats)) return folder;
    throw new StorageError(
      "failed-precondition",
      `the content builds on ${parentID}, which is not here any more; send it whole`,
      { parentID },
    );
  }

  async #receiveIn(
    folder: string,
    to: string,
    purpose: Purpose,
    content: ContentIn,
    context: OpContext,
  ): Promise<void> {
    const { discard } = this.#parts;
    const isWhole = content.parentID === undefined;
    if (isWhole) {
      await discard(folder, context);
      await createSubvolume(context, folder);
    } else await this.#clear(folder, context);
    try {
      await receiveStream(context, folder, content.bytes);
      const received = join(folder, this.#receivedIn(folder));
      await checkFits(received, purpose, context);
      await this.#keep(received, content.contentID, context);
      await snapshotSubvolume(context, received, to, false);
      await this.#parts.limit(to, purpose.sizeBytes, context);
    } finally {
      const own = { ...context, signal: AbortSignal.timeout(CLEAR_MS) };
      if (isWhole) await discardSurely(folder, discard, own);
      else await this.#clear(folder, own);
    }
  }

  /** All but the kept content: what a receive leaves. */
  async #clear(folder: string, context: OpContext): Promise<void> {
    for (const name of readdirSync(folder))
      if (name !== BASE) await discardSurely(join(folder, name), this.#parts.discard, context);
  }

  /** A stream may hold several subvolumes, or one that is not whole, which then is writable. */
  #receivedIn(folder: string): string {
    const names = readdirSync(folder).filter((name) => name !== BASE);
    const [name] = names;
    const path = join(folder, name ?? "");
    if (
      name !== undefined &&
      names.length === 1 &&
      isSubvolume(lstatSync(path)) &&
      isReadOnly(path)
    )
      return name;
    throw new StorageError(
      "invalid-argument",
      `the content is not one whole subvolume: it has ${names.length}`,
      { subvolumes: names.length },
    );
  }

  async #keep(received: string, contentID: string | undefined, context: OpContext): Promise<void> {
    if (contentID === undefined) return;
    const all = await subvolumeUUIDs(context, this.#parts.root);
    const own = all.find(
      (one) => this.#parts.pathsWithin(this.#parts.root, [one.path])[0] === received,
    );
    if (own?.contentID !== contentID)
      throw new StorageError(
        "invalid-argument",
        `the content was said to be ${contentID}, and is ${own?.contentID ?? "another"}`,
        { contentID },
      );
    await context.files.makeFolder(this.#keptFolder);
    const folder = join(this.#keptFolder, contentID);
    const base = join(folder, BASE);
    await this.#locks.run(`keep ${folder}`, async () => {
      if (lstatSync(base, { throwIfNoEntry: false }) !== undefined) return;
      await this.#parts.discard(folder, context);
      await createSubvolume(context, folder);
      await snapshotSubvolume(context, received, base, true);
    });
  }

  kept(): readonly string[] {
    return namesIn(this.#keptFolder).filter((name) =>
      lstatSync(join(this.#keptFolder, name, BASE), { throwIfNoEntry: false })?.isDirectory(),
    );
  }

  async release(contentID: string, context: OpContext): Promise<void> {
    if (!CONTENT_ID.test(contentID)) return;
    await this.#parts.discard(join(this.#keptFolder, contentID), context);
  }

  /** What earlier runs have received, and contents that no volume needs. */
  leftovers(needed: ReadonlySet<string>): string[] {
    const { root } = this.#parts;
    const received = namesIn(root)
      .filter((name) => name.startsWith(RECEIVED_PREFIX))
      .map((name) => join(root, name));
    const unneeded = namesIn(this.#keptFolder)
      .filter((name) => CONTENT_ID.test(name) && !needed.has(name))
      .map((name) => join(this.#keptFolder, name));
    return [...received, ...unneeded].filter((path) => !this.#receiving.has(path));
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
