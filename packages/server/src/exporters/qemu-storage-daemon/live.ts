/** A volume's image in its storage daemon, which has it open and so is the only one that can change it. */
import { statSync } from "node:fs";
import { StorageError } from "@libstorage/model";
import type { OpContext, VolumeRecord } from "../../core/driver.js";
import type { LiveImage } from "../../core/live-image.js";
import { needCommands } from "./features.js";
import type { Features } from "./features.js";
import { topOf } from "./graph.js";
import { fileNodeOf, overlayNodes } from "./nodes.js";
import type { OpenVolume } from "./open-volume.js";
import { hasOpen, ownerOf } from "./process.js";
import { QmpError } from "./qmp.js";
import { explained } from "./refusal.js";

export class LiveVolume implements LiveImage {
  readonly #volume: VolumeRecord;
  readonly #opened: OpenVolume;
  readonly #features: Features;
  readonly #context: OpContext;

  constructor(volume: VolumeRecord, opened: OpenVolume, features: Features, context: OpContext) {
    this.#context = context;
    this.#volume = volume;
    this.#opened = opened;
    this.#features = features;
  }

  async sizeBytes(): Promise<number> {
    await this.#settle();
    return (await this.#opened.top()).sizeBytes;
  }

  async grow(sizeBytes: number): Promise<void> {
    needCommands(this.#features, ["block_resize"], "give a volume another size");
    await this.#settle();
    const { sizeBytes: now } = await this.#opened.top();
    if (now === sizeBytes) return;
    // The daemon would shrink it without a word.
    if (now > sizeBytes)
      throw new StorageError(
        "invalid-argument",
        `the image of volume ${this.#volume.id} has ${now} bytes already`,
        { volumeID: this.#volume.id, sizeBytes: now },
      );
    await this.#opened.resize(sizeBytes).catch((error: unknown) => {
      throw this.#named(error);
    });
  }

  #named(error: unknown): unknown {
    const { id } = this.#volume;
    const known = meaningOf(error);
    if (!(known instanceof StorageError) || known instanceof QmpError) return known;
    const text = `volume ${id} cannot be expanded now: ${known.message}`;
    return new StorageError(known.code, text, { ...known.data, volumeID: id }, { cause: error });
  }

  async keep(name: string): Promise<boolean> {
    needCommands(this.#features, ["blockdev-snapshot-internal-sync"], "make snapshots in an image");
    await this.#settle();
    if ((await this.#opened.top()).inner.includes(name)) return true;
    const device = await this.#root();
    if (device === undefined) return false;
    await this.#opened.execute("blockdev-snapshot-internal-sync", { device, name });
    return true;
  }

  async drop(name: string): Promise<void> {
    const command = "blockdev-snapshot-delete-internal-sync";
    needCommands(this.#features, [command], "remove snapshots from an image");
    await this.#settle();
    if (!(await this.#opened.top()).inner.includes(name)) return;
    const device = await this.#root();
    if (device === undefined)
      throw new StorageError(
        "failed-precondition",
        `snapshot ${name} lies inside the image of volume ${this.#volume.id}, from which nothing is removed while the volume has several exports; remove all but one, and try again`,
        { volumeID: this.#volume.id, snapshotID: name },
      );
    await this.#opened.execute(command, { device, name });
  }

  async layOver(path: string): Promise<void> {
    const needed = ["blockdev-snapshot", "block_resize"];
    needCommands(this.#features, needed, "exchange the image of a volume");
    const [bitmap] = await this.#opened.bitmaps();
    if (bitmap !== undefined)
      throw new StorageError(
        "failed-precondition",
        `the dirty bitmap ${bitmap} of volume ${this.#volume.id} would record nothing any more; remove it first`,
        { volumeID: this.#volume.id, bitmap },
      );
    await this.#layOver(path);
  }

  /** Does again what was cut short: the record's image lies over the one that is written still. */
  async #settle(): Promise<void> {
    const { source } = this.#volume;
    if (source.kind === "file" && source.format === "qcow2") await this.#layOver(source.path);
  }

  async #layOver(path: string): Promise<void> {
    if (this.#hasOpen(path)) return;
    const nodes = await this.#opened.nodes();
    const { names } = this.#opened;
    const { name: below, sizeBytes: size } = topOf(nodes, names);
    if (!nodes.some(({ name }) => name === fileNodeOf(below)))
      throw new StorageError(
        "failed-precondition",
        `volume ${this.#volume.id} has been exported since an earlier version of this server, and its storage daemon cannot exchange the image; detach it or remove its exports, and try again`,
        { volumeID: this.#volume.id },
      );
    await this.#give(path);
    const over = names.over(below);
    // Of a try that was cut short.
    await this.#dropNodes(over);
    try {
      for (const node of overlayNodes(path, over)) await this.#opened.execute("blockdev-add", node);
      // It may have grown since the layer was made, and would be cut to the layer's size.
      await this.#opened.execute("block_resize", { "node-name": over, size });
      await this.#opened.layOver(below, over);
    } catch (error) {
      if (error instanceof QmpError) await this.#dropNodes(over);
      throw explained(error);
    }
  }

  /** A daemon with a user of its own could not open it. */
  async #give(path: string): Promise<void> {
    const { pid } = this.#opened.daemon;
    if (pid === undefined) return;
    const { uid, gid } = ownerOf(pid);
    if (statSync(path).uid === uid) return;
    const { exec, signal } = this.#context;
    await exec("chown", ["--no-dereference", "--", `${uid}:${gid}`, path], signal);
  }

  async #dropNodes(name: string): Promise<void> {
    const names = new Set((await this.#opened.nodes()).map((one) => one.name));
    for (const node of [name, fileNodeOf(name)])
      if (names.has(node)) await this.#opened.execute("blockdev-del", { "node-name": node });
  }

  #hasOpen(path: string): boolean {
    const { pid } = this.#opened.daemon;
    return pid !== undefined && hasOpen(pid, path);
  }

  /**
   * The node through which all requests pass: what is done to it is done between two of them. With filters, there is
   * none once there are several exports.
   */
  async #root(): Promise<string | undefined> {
    const { names } = this.#opened;
    const nodes = await this.#opened.nodes();
    const [filter, ...more] = nodes.filter(({ name }) => names.isFilter(name));
    if (filter === undefined) return topOf(nodes, names).name;
    const isOnly = more.length === 0 && (await this.#opened.exports()).length === 1;
    return isOnly ? filter.name : undefined;
  }
}

/** No room, or more than the format or the file system can hold. */
function meaningOf(error: unknown): unknown {
  if (!(error instanceof QmpError)) return error;
  const { desc, data } = error;
  const as = (code: "invalid-argument" | "resource-exhausted", text: string): StorageError =>
    new StorageError(code, `${text}: ${desc}`, data, { cause: error });
  if (/too (?:large|big)/i.test(desc))
    return as("invalid-argument", "it would be too large for its format or file system");
  if (/No space left/i.test(desc)) return as("resource-exhausted", "there is no room for it");
  return error;
}
