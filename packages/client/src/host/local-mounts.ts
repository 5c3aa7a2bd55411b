/** What this host has mounted of one service, by its own records and the kernel's table. Asks no server. */
import type { ExecutorContext } from "../executor/executor.js";
import { openExecutor } from "../executor/index.js";
import { mountFolderOf, MountRecords } from "./mount-records.js";
import type { MountRecordFile } from "./mount-records.js";
import type { OperationSettings } from "./operation-settings.js";
import { rootPathOf } from "./root-folder.js";
import { findNamed } from "./volume-names.js";

export interface LocalMountsOptions {
  /** The service's name. */
  readonly name: string;
  /** Tells servers apart whose services and volumes have the same names: the address, or `embedded`. */
  readonly server: string;
  readonly executors: ExecutorContext;
  readonly operations: OperationSettings;
}

export class LocalMounts {
  readonly records: MountRecords;
  readonly executors: ExecutorContext;
  readonly #options: LocalMountsOptions;

  constructor(options: LocalMountsOptions) {
    this.#options = options;
    this.executors = options.executors;
    const { executors, server, name } = options;
    this.records = new MountRecords(mountFolderOf(executors.libFolder, server, name));
  }

  /** By the volume's id or exact name. @throws {StorageError} `failed-precondition` for several */
  async named(name: string): Promise<MountRecordFile | undefined> {
    const records = await this.records.all();
    const named = records.filter((one) => one.volumeID === name || one.name === name);
    if (named.length === 0) return undefined;
    const byID = Object.fromEntries(
      named.map((one) => [one.volumeID, { ...one, id: one.volumeID }]),
    );
    return findNamed("volume", name, { [this.#options.name]: byID }).object;
  }

  /** Whether what the record says is mounted there now. */
  async stands(record: MountRecordFile): Promise<boolean> {
    const executor = openExecutor(record.driver, this.executors);
    const { device, mountPoint, source } = record;
    return (await executor?.isMounted?.(device, mountPoint, source)) === true;
  }

  /** The folder to use of what a record stands for; empty when it is not mounted. */
  async pathOf(record: MountRecordFile | undefined): Promise<string> {
    if (record === undefined || !(await this.stands(record))) return "";
    return rootPathOf(record.mountPoint, this.#options.operations.mount);
  }

  async mounted(): Promise<readonly MountRecordFile[]> {
    const records = await this.records.all();
    const stands = await Promise.all(records.map((record) => this.stands(record)));
    return records.filter((_record, index) => stands[index]);
  }
}
