/** Backstores: what the kernel's target knows of a device or a file before anybody is let in to it. */
import { createHash } from "node:crypto";
import { realpath } from "node:fs/promises";
import { basename, join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { OpContext, VolumeRecord } from "../../core/driver.js";
import { refusedSource, sourceOf, usedBy } from "../iscsi/source.js";
import type { CheckedSource } from "../iscsi/source.js";
import { UNSYNCED, attribute, codeOf, exists, folders } from "./kernel.js";

/** What the kernel calls a backstore of a device, and of a file. */
const PLUGINS = { block: "iblock", file: "fileio" } as const;

export interface BackstoreSpec {
  readonly name: string;
  readonly serial: string;
  readonly volume: VolumeRecord;
  readonly isDiscardAllowed: boolean;
}

export class Backstores {
  readonly #core: string;
  /** Where a backstore of a name is; the boot service of targetcli may have made it anywhere. */
  readonly #places = new Map<string, string>();

  constructor(root: string) {
    this.#core = join(root, "core");
  }

  /** Looks at all there are. @returns their names */
  async scan(): Promise<readonly string[]> {
    this.#places.clear();
    for (const group of await folders(this.#core)) {
      if (!/^(?:iblock|fileio)_\d+$/.test(group)) continue;
      for (const name of await folders(join(this.#core, group)))
        this.#places.set(name, join(this.#core, group, name));
    }
    return [...this.#places.keys()];
  }

  /** Makes a volume's backstore, or finishes one that was half made. @returns its folder */
  async ensure(spec: BackstoreSpec, context: OpContext): Promise<string> {
    const { volume, name, serial } = spec;
    const source = await sourceOf(volume);
    const there = await this.#find(name, source.kind);
    if (there !== undefined && (await isEnabled(there))) {
      if (await isSame(there, source.path, serial)) {
        await this.#allowDiscard(there, spec, source, context);
        return there;
      }
      // It was made for another device, or from a file that was edited.
      if (!(await this.remove(name, context)))
        throw refusedSource(
          volume.id,
          `has a backstore ${there} that was made for something else and is in use; remove it by hand`,
        );
    }
    const folder = this.#placeFor(name, source.kind);
    await context.files.makeFolder(join(folder, ".."), 0o755, UNSYNCED);
    await context.files.makeFolder(folder, 0o755, UNSYNCED);
    this.#places.set(name, folder);
    await this.#fill(folder, spec, source, context);
    return folder;
  }

  async #fill(
    folder: string,
    spec: BackstoreSpec,
    source: CheckedSource,
    context: OpContext,
  ): Promise<void> {
    const { files } = context;
    const { volume, serial } = spec;
    const { kind, path, sizeBytes } = source;
    const control =
      kind === "block"
        ? `udev_path=${path}`
        : `fd_dev_name=${path},fd_dev_size=${sizeBytes},fd_buffered_io=1`;
    await files.writeAttribute(join(folder, "control"), control);
    await files.writeAttribute(join(folder, "udev_path"), path);
    await files.writeAttribute(join(folder, "wwn/vpd_unit_serial"), serial);
    try {
      await files.writeAttribute(join(folder, "enable"), "1");
    } catch (error) {
      if (await isEnabled(folder)) return;
      throw await this.#busy(volume.id, path, error);
    }
    await this.#allowDiscard(folder, spec, source, context);
  }

  async #allowDiscard(
    folder: string,
    { isDiscardAllowed }: BackstoreSpec,
    { path, kind }: CheckedSource,
    { files, log }: OpContext,
  ): Promise<void> {
    const attrib = join(folder, "attrib/emulate_tpu");
    if (!isDiscardAllowed || (await attribute(attrib)) === "1") return;
    if (!(await canDiscard(path, kind))) return;
    try {
      await files.writeAttribute(attrib, "1");
    } catch (error) {
      if (codeOf(error) !== "ENOSYS" && codeOf(error) !== "EINVAL") throw error;
      log.warn({ path }, "the kernel lets nobody discard blocks of this device");
    }
  }

  /** Why the kernel does not take a device. */
  async #busy(volumeID: string, path: string, cause: unknown): Promise<StorageError> {
    const holder = (await this.#holderOf(path)) ?? "look for what holds it with lsblk and fuser";
    return new StorageError(
      "failed-precondition",
      `volume ${volumeID} cannot be exported: the kernel does not take ${path} (${codeOf(cause)}), which an export needs for itself: ${holder}`,
      { volumeID, path },
      { cause },
    );
  }

  async #holderOf(path: string): Promise<string | undefined> {
    await this.scan();
    const device = await realpath(path).catch(() => path);
    for (const [name, folder] of this.#places) {
      if (!(await isEnabled(folder))) continue;
      const other = (await attribute(join(folder, "udev_path"))) ?? "";
      if (other !== "" && (await realpath(other).catch(() => other)) === device)
        return `the backstore ${name} of the kernel's target has it`;
    }
    return usedBy(device);
  }

  /** Tells the kernel a file's new size; it sees that of a device by itself. */
  async resize(name: string, volume: VolumeRecord, { files }: OpContext): Promise<void> {
    const { kind, sizeBytes } = await sourceOf(volume);
    const folder = await this.#find(name, kind);
    if (kind === "block" || folder === undefined) return;
    await files.writeAttribute(join(folder, "control"), `fd_dev_size=${sizeBytes}`);
  }

  /** Removes a backstore that no target uses. @returns false when one does */
  async remove(name: string, { files }: OpContext): Promise<boolean> {
    const folder = this.#places.get(name);
    if (folder === undefined) return true;
    try {
      await files.removeFolder(folder, UNSYNCED);
      await files.removeFolder(join(folder, ".."), UNSYNCED);
    } catch (error) {
      // Others may stand in the same group.
      if (await exists(folder)) {
        if (codeOf(error) === "EBUSY") return false;
        throw error;
      }
      if (codeOf(error) !== "ENOTEMPTY" && codeOf(error) !== "EBUSY") throw error;
    }
    this.#places.delete(name);
    return true;
  }

  /** @param kind for the place where it would have been made */
  async #find(name: string, kind: CheckedSource["kind"]): Promise<string | undefined> {
    const known = this.#places.get(name) ?? this.#placeFor(name, kind);
    if (!(await exists(known))) {
      this.#places.delete(name);
      return undefined;
    }
    this.#places.set(name, known);
    return known;
  }

  /**
   * The kernel wants a number; the same name gets the same one, so that a half-made backstore is found again.
   * Two names of one number share a group, which does no harm.
   */
  #placeFor(name: string, kind: CheckedSource["kind"]): string {
    const known = this.#places.get(name);
    if (known !== undefined && basename(join(known, "..")).startsWith(PLUGINS[kind])) return known;
    const number = createHash("sha256").update(name).digest().readUInt32BE() % 2 ** 31;
    return join(this.#core, `${PLUGINS[kind]}_${number}`, name);
  }
}

async function isEnabled(folder: string): Promise<boolean> {
  return (await attribute(join(folder, "enable"))) === "1";
}

async function isSame(folder: string, path: string, serial: string): Promise<boolean> {
  const unit = (await attribute(join(folder, "wwn/vpd_unit_serial"))) ?? "";
  return (
    unit.endsWith(`: ${serial}`) && (await attribute(join(folder, "udev_path")))?.trim() === path
  );
}

async function canDiscard(path: string, kind: CheckedSource["kind"]): Promise<boolean> {
  if (kind === "file") return true;
  const device = basename(await realpath(path));
  const max = await attribute(`/sys/class/block/${device}/queue/discard_max_bytes`);
  return max !== undefined && max !== "0";
}
