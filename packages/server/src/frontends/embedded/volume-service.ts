/**
 * The libStorage operations over the core in this process: what the REST front-end serves, and what a
 * program that embeds the server calls, without any socket.
 */
import { randomUUID } from "node:crypto";
import {
  StorageError,
  bytesOfGiB,
  fieldsOfOpts,
  instanceIDFor,
  needsInstanceID,
  notFound,
  parseFilter,
} from "@libstorage/model";
import type {
  CallContext,
  InstanceID,
  Opts,
  ServiceInfo,
  Snapshot,
  Volume,
  VolumeCreateRequest,
  VolumeService,
} from "@libstorage/model";
import { heldBy } from "../../core/access.js";
import type { VolumeRecord } from "../../core/driver.js";
import { stored } from "../../core/operations.js";
import type { Caller } from "../../core/operations.js";
import type { NewVolume } from "../../core/creations.js";
import type { StorageService } from "../../core/service.js";
import type { Storage } from "../../core/storage.js";
import type { LiveTask } from "../../core/tasks.js";
import { ListCache, pageOf } from "./lists.js";
import type { ListQuery } from "./lists.js";
import { ANSWERS, taskNumber, taskOf } from "./tasks.js";
import { plainVolume, snapshotOf, volumeUnder, volumeWith } from "./wire.js";

/** @throws {StorageError} `invalid-argument` when the caller sent no instance ID for the service */
function instanceOf(service: StorageService, context: CallContext): InstanceID {
  const id = instanceFor(service, context);
  if (id !== undefined) return id;
  throw new StorageError("invalid-argument", "missing instance ID", { service: service.name });
}

function instanceFor(
  { name, driverName }: StorageService,
  { instanceIDs }: CallContext,
): InstanceID | undefined {
  return instanceIDs === undefined ? undefined : instanceIDFor(instanceIDs, name, driverName);
}

/**
 * The instance that holds volumes. An ID that is still to be worked out from its metadata holds none.
 * @throws {StorageError} `invalid-argument`
 */
function holderOf(service: StorageService, context: CallContext): InstanceID {
  const id = instanceOf(service, context);
  if (id.id !== "") return id;
  throw new StorageError("invalid-argument", "missing instance ID", { service: service.name });
}

function checkMask(service: StorageService, mask: number, context: CallContext): void {
  if (needsInstanceID(mask)) holderOf(service, context);
}

function callerOf(context: CallContext): Caller {
  const { onTask, async, idempotencyKey } = context;
  return {
    who: context.who ?? "",
    via: context.via ?? "embedded",
    tx: context.tx?.txID ?? randomUUID(),
    ...(idempotencyKey !== undefined && { idempotencyKey }),
    ...(async === true && { isDetached: true }),
    ...(onTask !== undefined && { onTask: (task) => follow(task, onTask) }),
  };
}

/** Part of a larger operation: its own task and key are the larger one's affair. */
function partOf({ onTask: _onTask, idempotencyKey: _key, ...caller }: Caller): Caller {
  return caller;
}

function follow(task: LiveTask, onTask: NonNullable<CallContext["onTask"]>): void {
  onTask(taskOf(task.record));
  task.addListener((record) => onTask(taskOf(record)));
}

function newVolume(body: VolumeCreateRequest): NewVolume {
  const { name, size, type, availabilityZone, iops, encrypted, opts } = body;
  return {
    name,
    ...(size !== undefined && { sizeBytes: bytesOfGiB(size) }),
    ...(type !== undefined && { type }),
    ...(availabilityZone !== undefined && { availabilityZone }),
    ...(iops !== undefined && { iops }),
    ...(encrypted !== undefined && { encrypted }),
    fields: fieldsOf(opts),
  };
}

function fieldsOf(opts: Opts | undefined): Record<string, string> {
  return opts === undefined ? {} : fieldsOfOpts(opts);
}

/** What one service failed with, and what the others had answered before. */
function batchError(completed: object, error: unknown): StorageError {
  const { message, data, code } = stored(error);
  return new StorageError(code, "batch processing error", {
    completed,
    inner: { ...data, msg: message },
  });
}

export function openVolumeService(storage: Storage): VolumeService {
  const { tasks } = storage.operations;
  const volumeLists = new ListCache<VolumeRecord, Volume>();
  const snapshotLists = new ListCache<Parameters<typeof snapshotOf>[0], Snapshot>();

  /** Answers a read; with `async` as a task, which then is all that is left of it. */
  async function read<T>(
    operation: string,
    service: string,
    context: CallContext,
    answer: () => T | Promise<T>,
  ): Promise<T> {
    if (context.async !== true) return answer();
    const task = tasks.create(operation, service);
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
      tasks.finished(task);
    }
  }

  async function volumeList(
    service: StorageService,
    {
      attachments: mask = 0,
      refresh,
      ...query
    }: ListQuery & { attachments?: number; refresh?: boolean },
    context: CallContext,
  ): Promise<Record<string, Volume>> {
    checkMask(service, mask, context);
    if (refresh === true)
      await service.inventory.refresh(context.signal ?? AbortSignal.timeout(60_000));
    const instance = instanceFor(service, context);
    const viewer = mask === 0 ? "" : (instance?.id.toLowerCase() ?? "");
    return volumeLists.list(
      service.inventory.volumes.all(),
      `${mask} ${viewer}`,
      (record) => volumeUnder(record, mask, instance),
      query,
    );
  }

  async function snapshotList(
    service: StorageService,
    { refresh, ...query }: ListQuery & { refresh?: boolean },
    context: CallContext,
  ): Promise<Record<string, Snapshot>> {
    if (refresh === true)
      await service.inventory.refresh(context.signal ?? AbortSignal.timeout(60_000));
    return snapshotLists.list(service.inventory.snapshots.all(), "", snapshotOf, query);
  }

  /** One answer per service, in the order of their names; the first failure ends the batch. */
  async function forAll<T>(
    answer: (service: StorageService) => Promise<T>,
    isWorthAMember: (result: T) => boolean = () => true,
  ): Promise<Record<string, T>> {
    const completed: Record<string, T> = {};
    for (const name of [...storage.services.keys()].toSorted()) {
      try {
        const result = await answer(storage.service(name));
        if (isWorthAMember(result)) completed[name] = result;
      } catch (error) {
        throw batchError(completed, error);
      }
    }
    return completed;
  }

  /** Detaches what the instance holds, and answers every volume of the service. */
  async function detachAll(
    service: StorageService,
    force: boolean,
    context: CallContext,
    caller: Caller,
  ): Promise<Record<string, Volume>> {
    const instance = holderOf(service, context);
    const held = service.inventory.volumes
      .all()
      .filter((volume) => volume.broken === undefined && heldBy(volume, instance) !== undefined);
    for (const { id } of held) await service.volumeDetach(id, instance, force, partOf(caller));
    return Object.fromEntries(
      service.inventory.volumes.all().map((record) => [record.id, volumeWith(record, [], 3)]),
    );
  }

  function serviceInfo(
    service: StorageService,
    withInstance: boolean,
    context: CallContext,
  ): ServiceInfo {
    const { name, info: driver } = service;
    if (!withInstance) return { name, driver };
    return { name, instance: service.instanceInspect(instanceOf(service, context)), driver };
  }

  /** Several operations under one task and one idempotency key. */
  function together<T>(
    operation: string,
    service: string,
    request: unknown,
    context: CallContext,
    act: (caller: Caller) => Promise<T>,
  ): Promise<T> {
    const caller = callerOf(context);
    return storage.operations.run(
      { operation, service, request, prepare: async () => ({ settled: await act(caller) }) },
      caller,
    );
  }

  return {
    services: async ({ instance = false }, _body, context) =>
      Object.fromEntries(
        [...storage.services.keys()]
          .toSorted()
          .map((name) => [name, serviceInfo(storage.service(name), instance, context)]),
      ),
    serviceInspect: async ({ service, instance = false }, _body, context) =>
      serviceInfo(storage.service(service), instance, context),

    volumes: async ({ limit, after, ...query }, _body, context) => {
      compileFilter(query.filter);
      return read("volumes", "", context, async () => {
        const all = await forAll((service) => volumeList(service, query, context));
        return pageOf(all, limit, after);
      });
    },
    volumesByService: async ({ service, ...query }, _body, context) => {
      const found = storage.service(service);
      compileFilter(query.filter);
      return read("volumesByService", found.name, context, () => volumeList(found, query, context));
    },
    volumeInspect: async ({ service, volumeID, attachments: mask = 0, byName }, _body, context) => {
      const found = storage.service(service);
      checkMask(found, mask, context);
      return read("volumeInspect", found.name, context, () => {
        const record = byName === true ? found.volumeNamed(volumeID) : found.volume(volumeID);
        if (mask === 0) return plainVolume(record);
        const volume = volumeUnder(record, mask, instanceFor(found, context));
        if (volume === undefined) throw notFound("volume", volumeID, { service: found.name });
        return volume;
      });
    },
    volumeCreate: async ({ service }, body, context) =>
      ANSWERS.volumeCreate(
        await storage.service(service).volumeCreate(newVolume(body), callerOf(context)),
      ),
    volumeCopy: async ({ service, volumeID }, { volumeName, opts }, context) => {
      const request = { name: volumeName, fields: fieldsOf(opts) };
      return ANSWERS.volumeCopy(
        await storage.service(service).volumeCopy(volumeID, request, callerOf(context)),
      );
    },
    volumeSnapshot: async ({ service, volumeID }, { snapshotName, opts }, context) => {
      const request = { name: snapshotName, fields: fieldsOf(opts) };
      return snapshotOf(
        await storage.service(service).volumeSnapshot(volumeID, request, callerOf(context)),
      );
    },
    volumeAttach: async (
      { service, volumeID },
      { nextDeviceName = "", force = false },
      context,
    ) => {
      const found = storage.service(service);
      const instance = holderOf(found, context);
      const attached = await found.volumeAttach(
        volumeID,
        { to: instance, deviceName: nextDeviceName, force },
        callerOf(context),
      );
      return ANSWERS.volumeAttach(attached);
    },
    volumeDetach: async ({ service, volumeID }, { force = false }, context) => {
      const found = storage.service(service);
      const instance = holderOf(found, context);
      return ANSWERS.volumeDetach(
        await found.volumeDetach(volumeID, instance, force, callerOf(context)),
      );
    },
    volumeExpand: async ({ service, volumeID }, { size }, context) =>
      ANSWERS.volumeExpand(
        await storage.service(service).volumeExpand(volumeID, bytesOfGiB(size), callerOf(context)),
      ),
    volumeDetachAllForService: async ({ service }, { force = false }, context) => {
      const found = storage.service(service);
      holderOf(found, context);
      return together("volumeDetachAllForService", found.name, { force }, context, (caller) =>
        detachAll(found, force, context, caller),
      );
    },
    volumeDetachAll: async (_params, { force = false }, context) =>
      together("volumeDetachAll", "", { force }, context, (caller) =>
        forAll(
          (service) => detachAll(service, force, context, caller),
          (volumes) => Object.keys(volumes).length > 0,
        ),
      ),
    volumeRemove: ({ service, volumeID, force = false }, _body, context) =>
      storage.service(service).volumeRemove(volumeID, force, callerOf(context)),

    snapshots: async ({ limit, after, ...query }, _body, context) => {
      compileFilter(query.filter);
      return read("snapshots", "", context, async () => {
        const all = await forAll((service) => snapshotList(service, query, context));
        return pageOf(all, limit, after);
      });
    },
    snapshotsByService: async ({ service, ...query }, _body, context) => {
      const found = storage.service(service);
      compileFilter(query.filter);
      return read("snapshotsByService", found.name, context, () =>
        snapshotList(found, query, context),
      );
    },
    snapshotInspect: async ({ service, snapshotID, byName }, _body, context) => {
      const found = storage.service(service);
      return read("snapshotInspect", found.name, context, () =>
        snapshotOf(byName === true ? found.snapshotNamed(snapshotID) : found.snapshot(snapshotID)),
      );
    },
    volumeCreateFromSnapshot: async ({ service, snapshotID }, body, context) =>
      ANSWERS.volumeCreateFromSnapshot(
        await storage
          .service(service)
          .volumeCreateFromSnapshot(snapshotID, newVolume(body), callerOf(context)),
      ),
    snapshotCopy: async ({ service, snapshotID }, { snapshotName, opts }, context) => {
      const request = { name: snapshotName, fields: fieldsOf(opts) };
      return snapshotOf(
        await storage.service(service).snapshotCopy(snapshotID, request, callerOf(context)),
      );
    },
    snapshotRemove: async ({ service, snapshotID }, _body, context) =>
      storage.service(service).snapshotRemove(snapshotID, callerOf(context)),

    tasks: async () =>
      Object.fromEntries(tasks.all().map((record) => [String(record.id), taskOf(record)])),
    taskInspect: async ({ taskID }) => {
      const record = tasks.find(taskNumber(taskID));
      if (record === undefined) throw notFound("task", taskID);
      return taskOf(record);
    },
    taskCancel: async ({ taskID }, _body, context) => {
      const id = taskNumber(taskID);
      const task = tasks.live(id);
      if (task === undefined || task.isDone) {
        const record = tasks.find(id);
        if (record === undefined) throw notFound("task", taskID);
        throw new StorageError(
          "failed-precondition",
          `task ${taskID} (${record.operation}) has ended already with ${record.state}`,
          { task: id, state: record.state },
        );
      }
      task.cancel(context.who ?? "the caller");
      return taskOf(task.record);
    },
  };
}

/** A bad filter is refused before anything is looked at. */
function compileFilter(filter: string | undefined): void {
  if (filter !== undefined) parseFilter(filter);
}
