/**
 * How a volume comes to this node and goes again: what the executor of its driver knows, under the names that
 * staging needs. A folder is there already; a device may have to be connected, proven and formatted.
 */
import { StorageError } from "@libstorage/model";
import type { VolumeAttachment } from "@libstorage/model";
import type { Executor, ExecutorContext } from "../../executor/executor.js";
import { openExecutor } from "../../executor/index.js";
import { mountsAt, readMountTable } from "../../executor/mount-table.js";

/** The volume as the service gives it to this node. */
export interface Source {
  readonly volumeID: string;
  readonly driver: string;
  readonly device: string;
  readonly fields: Readonly<Record<string, string>>;
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
  readonly signal: AbortSignal;
}

/** Each may be called again. @throws {StorageError} */
export class NodeStorage {
  readonly #executors: ExecutorContext;

  constructor(executors: ExecutorContext) {
    this.#executors = executors;
  }

  get exec(): ExecutorContext["exec"] {
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

  /** Mounts the volume's file system, or its folder. */
  async stage(source: Source, { path, options, signal }: StageRequest): Promise<void> {
    const { volumeID, device } = source;
    await this.#executor(source).mount?.({
      volumeID,
      device,
      mountPoint: path,
      ...(options.length > 0 && { options: options.join(",") }),
      signal,
    });
  }

  /** Whether the volume is what stands there. */
  async isStaged(source: Source, path: string): Promise<boolean> {
    return (await this.#executor(source).isMounted?.(source.device, path)) === true;
  }

  /** Whether what stands there is a whole file system on a device, not a folder of a larger one. */
  async hasOwnFileSystem(path: string): Promise<boolean> {
    const table = await readMountTable();
    const top = mountsAt(table, path).at(-1);
    return top !== undefined && top.root === "/" && top.source.startsWith("/dev/");
  }

  async freeze(path: string, signal: AbortSignal): Promise<void> {
    await this.exec("fsfreeze", ["--freeze", path], { signal });
  }

  async thaw(path: string, signal: AbortSignal): Promise<void> {
    await this.exec("fsfreeze", ["--unfreeze", path], { signal });
  }

  /** The folder stays: it is the orchestrator's. */
  async unstage(source: Source, path: string, signal: AbortSignal): Promise<void> {
    const { device } = source;
    await this.#executor(source).unmount?.({
      mountPoint: path,
      device,
      removeFolder: false,
      signal,
    });
  }
}
