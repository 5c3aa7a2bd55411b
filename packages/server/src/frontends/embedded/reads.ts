/** What reading calls share: tasks on request, lists that are kept, one answer per service. */
import type { CallContext, Snapshot, Volume } from "@libstorage/model";
import type { SnapshotRecord, VolumeRecord } from "../../core/driver.js";
import { stored } from "../../core/operations.js";
import type { StorageService } from "../../core/service.js";
import type { Storage } from "../../core/storage.js";
import { batchError, checkMask, follow, instanceFor } from "./calls.js";
import { ListCache } from "./lists.js";
import type { ListQuery } from "./lists.js";
import { snapshotOf, volumeUnder } from "./wire.js";

/** How long a listing anew may take when the caller sets no limit. */
const REFRESH_MS = 60_000;

export class Reads {
  readonly storage: Storage;
  readonly #volumes = new ListCache<VolumeRecord, Volume>();
  readonly #snapshots = new ListCache<SnapshotRecord, Snapshot>();

  constructor(storage: Storage) {
    this.storage = storage;
  }

  /** Answers a read; with `async` as a task, which then is all that is left of it. */
  async read<T>(
    operation: string,
    service: string,
    context: CallContext,
    answer: () => T | Promise<T>,
  ): Promise<T> {
    if (context.async !== true) return answer();
    const task = this.storage.operations.tasks.create(operation, service);
    task.isKept = true;
    if (context.onTask !== undefined) follow(task, context.onTask);
    try {
      task.start();
      const result = await answer();
      task.succeed(result);
      return result;
    } catch (error) {
      task.fail(stored(error));
      throw error;
    } finally {
      this.storage.operations.tasks.finished(task);
    }
  }

  async volumeList(
    service: StorageService,
    {
      attachments: mask = 0,
      refresh,
      ...query
    }: ListQuery & { attachments?: number; refresh?: boolean },
    context: CallContext,
  ): Promise<Record<string, Volume>> {
    checkMask(service, mask, context);
    if (refresh === true) await refreshed(service, context);
    const instance = instanceFor(service, context);
    const viewer = mask === 0 ? "" : (instance?.id.toLowerCase() ?? "");
    return this.#volumes.list(
      service.inventory.volumes.all(),
      `${mask} ${viewer}`,
      (record) => volumeUnder(record, mask, instance),
      query,
    );
  }

  async snapshotList(
    service: StorageService,
    { refresh, ...query }: ListQuery & { refresh?: boolean },
    context: CallContext,
  ): Promise<Record<string, Snapshot>> {
    if (refresh === true) await refreshed(service, context);
    return this.#snapshots.list(service.inventory.snapshots.all(), "", snapshotOf, query);
  }

  /** One answer per service, in the order of their names; the first failure ends the batch. */
  async forAll<T>(
    answer: (service: StorageService) => Promise<T>,
    isWorthAMember: (result: T) => boolean = () => true,
  ): Promise<Record<string, T>> {
    const completed: Record<string, T> = {};
    for (const name of [...this.storage.services.keys()].toSorted()) {
      try {
        const result = await answer(this.storage.service(name));
        if (isWorthAMember(result)) completed[name] = result;
      } catch (error) {
        throw batchError(completed, error);
      }
    }
    return completed;
  }
}

async function refreshed({ inventory }: StorageService, { signal }: CallContext): Promise<void> {
  await inventory.refresh(signal ?? AbortSignal.timeout(REFRESH_MS));
}
