/**
 * How a volume comes to this node and goes again: what the executor of its driver and its transport know, under
 * the names that staging needs. A folder is there already; a device may have to be connected, proven, checked
 * and formatted.
 */
import { realpath, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { VolumeAttachment } from "@libstorage/model";
import { CommandError } from "../../executor/exec.js";
import type { Exec } from "../../executor/exec.js";
import type {
  Attached,
  Executor,
  ExecutorContext,
  Limits,
  MountSource,
} from "../../executor/executor.js";
import { placesOf } from "../../executor/executor.js";
import { openExecutor } from "../../executor/index.js";
import { mountsAt, readMountTable } from "../../executor/mount-table.js";
import { tokenOf } from "../../host/hold-token.js";
import { clearRemains } from "../../filesystem/remains.js";
import { transportOf } from "../../transports/index.js";
import { sysText } from "../../transports/kernel.js";
import type { Backend } from "./backend.js";

/** The volume as the service gives it to this node. */
export interface Source extends Attached {
  readonly driver: string;
}

export function sourceOf(
  volumeID: string,
  driver: string,
  { deviceName, fields = {} }: VolumeAttachment,
): Source {
  return { volumeID, driver, device: deviceName, fields };
}

export interface StageRequest {
  readonly path: string;
  /** For mount(8). */
  readonly options: readonly string[];
  /** Empty: what is there, or the default on a blank device. */
  readonly fsType: string;
  /** Called before a file system is made and after; what is on the device between is nothing. */
  readonly formatting: (isBegun: boolean) => Promise<void>;
  readonly signal: AbortSignal;
}

const TOOL_MS = 60_000;
const GROW_MS = 10 * 60_000;

/** Each may be called again. @throws {StorageError} */
export class NodeStorage {
  readonly #backend: Backend;
  readonly #executors: ExecutorContext;
  readonly #fsType: string;

  /** @param fsType what a blank device gets when nobody asks for a type */
  constructor(backend: Backend, executors: ExecutorContext, fsType: string) {
    this.#backend = backend;
    this.#executors = executors;
    this.#fsType = fsType;
  }

  get exec(): Exec {
    return this.#executors.exec;
  }

  get isRoot(): boolean {
    return this.#executors.isRoot;
  }

  #executor({ driver }: Source): Executor {
    const executor = openExecutor(driver, this.#executors);
    if (executor?.mount !== undefined) return executor;
    throw new StorageError(
      "failed-precondition",
      `volumes of the driver ${driver} have no data that this node could reach`,
      { driver },
    );
  }

  /** Makes the volume's device appear on this node. */
  async connect(source: Source, attachment: VolumeAttachment, signal: AbortSignal): Promise<void> {
    const executor = this.#executor(source);
    if (executor.connects?.(source) !== true) return;
    const host = await this.#backend.hostService(signal);
    await host.connect(attachment, { signal });
  }

  /** Takes it away again. */
  async disconnect(source: Source, signal: AbortSignal): Promise<void> {
    if (this.#executor(source).connects?.(source) !== true) return;
    const host = await this.#backend.hostService(signal);
    await host.disconnect(source.volumeID, { signal });
  }

  /** Mounts the volume's file system, or its folder. @returns the mount, for a volume on a device */
  async stage(source: Source, request: StageRequest): Promise<MountSource | undefined> {
    const { path, options, fsType, formatting, signal } = request;
    const { volumeID, device, fields } = source;
    const mounted = await this.#executor(source).mount?.({
      volumeID,
      device,
      fields,
      mountPoint: path,
      ...(options.length > 0 && { options: options.join(",") }),
      fileSystem: {
        type: fsType === "" ? this.#fsType : fsType,
        isAsked: fsType !== "",
        formatting,
      },
      signal,
    });
    return mounted?.source;
  }

  /** Whether the volume is what stands there. */
  async isStaged(source: Source, path: string, mount?: MountSource): Promise<boolean> {
    return (await this.#executor(source).isMounted?.(source.device, path, mount)) === true;
  }

  /** The folder stays: it is the orchestrator's. */
  async unstage(
    source: Source,
    path: string,
    mount: MountSource | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { device, fields } = source;
    await this.#executor(source).unmount?.({
      mountPoint: path,
      device,
      fields,
      ...(mount !== undefined && { source: mount }),
      removeFolder: false,
      signal,
    });
  }

  /** The node of the volume's device, which has just proven to be the volume. */
  async deviceOf(source: Source, signal: AbortSignal): Promise<string> {
    return (await transportOf(this.#executors, source).prove(source, signal)).path;
  }

  /** Removes what is left of a file system that was being made when the plugin ended. */
  async clearRemains(source: Source, signal: AbortSignal): Promise<void> {
    const { exec } = this;
    const prove = (): Promise<string> => this.deviceOf(source, signal);
    const turn = tokenOf(source);
    await clearRemains({ volumeID: source.volumeID, turn, exec, signal, prove });
  }

  /** Makes a device that has grown known to this node and, where it is mounted, to its file system. */
  async grow(source: Source, path: string | undefined, signal: AbortSignal): Promise<void> {
    const limits: Limits = { signal, timeoutMs: GROW_MS };
    await this.#executor(source).expand?.(source, path, limits);
  }

  async setReadonly(source: Source, isReadonly: boolean, signal: AbortSignal): Promise<void> {
    const node = await this.deviceOf(source, signal);
    const limits = { signal, timeoutMs: TOOL_MS };
    await this.exec("blockdev", [isReadonly ? "--setro" : "--setrw", node], limits);
  }

  async sizeOf(device: string, signal: AbortSignal): Promise<number> {
    const limits = { signal, timeoutMs: TOOL_MS };
    return Number((await this.exec("blockdev", ["--getsize64", device], limits)).stdout.trim());
  }

  /** Whether what stands there is a whole file system on a device, not a folder of a larger one. */
  async hasOwnFileSystem(path: string): Promise<boolean> {
    const top = mountsAt(await readMountTable(), path).at(-1);
    return top !== undefined && top.root === "/" && top.source.startsWith("/dev/");
  }

  /**
   * Whether what is mounted is a logical volume of this host. LVM freezes its file system by itself for a snapshot, and
   * the kernel refuses to freeze one twice.
   */
  async isLogicalVolume(path: string): Promise<boolean> {
    const top = mountsAt(await readMountTable(), path).at(-1);
    if (top === undefined || !top.source.startsWith("/dev/")) return false;
    const name = basename(await realpath(top.source));
    const { sys } = placesOf(this.#executors);
    return (await sysText(join(sys, "class/block", name, "dm/uuid"))).startsWith("LVM-");
  }

  async freeze(path: string, signal: AbortSignal): Promise<void> {
    await this.exec("fsfreeze", ["--freeze", path], { signal });
  }

  /** What is not frozen, or not there any more, is fine. */
  async thaw(path: string, signal: AbortSignal): Promise<void> {
    await this.exec("fsfreeze", ["--unfreeze", path], { signal }).catch((error: unknown) => {
      const isNot =
        error instanceof CommandError && /invalid argument|no such file/i.test(error.stderr);
      if (!isNot) throw error;
    });
  }
}

/** Whether a path is the node of a device. */
export async function isSameDevice(path: string, device: string): Promise<boolean> {
  const [at, node] = await Promise.all(
    [path, device].map((one) => stat(one).catch(() => undefined)),
  );
  return at?.isBlockDevice() === true && at.rdev === node?.rdev;
}
