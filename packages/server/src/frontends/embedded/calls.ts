/** What every call brings along, in the core's terms: who asks, for which instance, with what. */
import { randomUUID } from "node:crypto";
import {
  StorageError,
  bytesOfGiB,
  fieldsOfOpts,
  instanceIDFor,
  needsInstanceID,
  parseFilter,
} from "@libstorage/model";
import type {
  CallContext,
  InstanceID,
  Opts,
  VolumeCreateRequest,
  VolumeUpdateRequest,
} from "@libstorage/model";
import type { NewVolume } from "../../core/creations.js";
import type { UpdateRequest } from "../../core/updates.js";
import { stored } from "../../core/operations.js";
import type { Caller } from "../../core/operations.js";
import type { StorageService } from "../../core/service.js";
import type { LiveTask } from "../../core/tasks.js";
import { taskOf } from "./tasks.js";

/** @throws {StorageError} `invalid-argument` when the caller sent no instance ID for the service */
export function instanceOf(service: StorageService, context: CallContext): InstanceID {
  const id = instanceFor(service, context);
  if (id !== undefined) return id;
  throw new StorageError("invalid-argument", "missing instance ID", { service: service.name });
}

export function instanceFor(
  { name, driverName }: StorageService,
  { instanceIDs }: CallContext,
): InstanceID | undefined {
  return instanceIDs === undefined ? undefined : instanceIDFor(instanceIDs, name, driverName);
}

/**
 * The instance that holds volumes. An ID that is still to be worked out from its metadata holds none.
 * @throws {StorageError} `invalid-argument`
 */
export function holderOf(service: StorageService, context: CallContext): InstanceID {
  const id = instanceOf(service, context);
  if (id.id !== "") return id;
  throw new StorageError("invalid-argument", "missing instance ID", { service: service.name });
}

export function checkMask(service: StorageService, mask: number, context: CallContext): void {
  if (needsInstanceID(mask)) holderOf(service, context);
}

export function callerOf(context: CallContext): Caller {
  const { onTask, async, idempotencyKey, onlyIfNew } = context;
  return {
    who: context.who ?? "",
    via: context.via ?? "embedded",
    tx: context.tx?.txID ?? randomUUID(),
    ...(idempotencyKey !== undefined && { idempotencyKey }),
    ...(onlyIfNew === true && { onlyIfNew }),
    ...(async === true && { isDetached: true }),
    ...(onTask !== undefined && { onTask: (task) => follow(task, onTask) }),
  };
}

/** Part of a larger operation: its own task and key are the larger one's affair. */
export function partOf({ onTask: _onTask, idempotencyKey: _key, ...caller }: Caller): Caller {
  return caller;
}

export function follow(task: LiveTask, onTask: NonNullable<CallContext["onTask"]>): void {
  onTask(taskOf(task.record));
  task.addListener((record) => onTask(taskOf(record)));
}

export function newVolume(body: VolumeCreateRequest): NewVolume {
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

/** Options become fields, as they do for a new volume. */
export function updateOf({ name, type, iops, fields, opts }: VolumeUpdateRequest): UpdateRequest {
  const named = Object.entries(fields ?? {}).map(([key, value]) => [key.toLowerCase(), value]);
  const all = { ...fieldsOf(opts), ...Object.fromEntries(named) } as Record<string, string | null>;
  return {
    ...(name !== undefined && { name }),
    ...(type !== undefined && { type }),
    ...(iops !== undefined && { iops }),
    ...(Object.keys(all).length > 0 && { fields: all }),
  };
}

export function fieldsOf(opts: Opts | undefined): Record<string, string> {
  return opts === undefined ? {} : fieldsOfOpts(opts);
}

/** The options of an attach that are the holder's own word on its hold; all other names are the server's. */
const HOLDER = /^holder\./i;

export function holderFieldsOf(opts: Opts | undefined): { fields?: Record<string, string> } {
  const own = Object.entries(opts ?? {}).filter(([key]) => HOLDER.test(key));
  return own.length === 0 ? {} : { fields: fieldsOfOpts(Object.fromEntries(own)) };
}

/** What one service failed with, and what the others had answered before. */
export function batchError(completed: object, error: unknown): StorageError {
  const { message, data, code } = stored(error);
  return new StorageError(code, "batch processing error", {
    completed,
    inner: { ...data, msg: message },
  });
}

/** A bad filter is refused before anything is looked at. */
export function compileFilter(filter: string | undefined): void {
  if (filter !== undefined) parseFilter(filter);
}
