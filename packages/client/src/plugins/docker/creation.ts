/** Create: the same call twice is one volume, also when the first one's answer was lost. */
import { createHash, randomUUID } from "node:crypto";
import * as v from "valibot";
import { Name, StorageError } from "@libstorage/model";
import type { CallContext, Snapshot, Volume } from "@libstorage/model";
import type { HostVolumes } from "../../host/index.js";
import { filterFor, findNamed } from "../../host/volume-names.js";
import { differences } from "./differences.js";
import { KeyLocks } from "../key-locks.js";
import type { Names } from "./names.js";
import type { CreateOptions } from "./options.js";

export class Creation {
  readonly #names: Names;
  readonly #locks = new KeyLocks();

  constructor(names: Names) {
    this.#names = names;
  }

  /** @returns whether creating is not switched off: then it does nothing, whatever is asked for */
  async create(
    volumes: HostVolumes,
    name: string,
    wanted: CreateOptions,
    context: CallContext,
  ): Promise<boolean> {
    checkName(name);
    if (volumes.operations.create.disable) return false;
    await this.#locks.run(name, () => this.#create(volumes, name, wanted, context));
    return true;
  }

  async #create(
    volumes: HostVolumes,
    name: string,
    wanted: CreateOptions,
    context: CallContext,
  ): Promise<void> {
    const alias = await this.#names.find(name);
    if (alias !== undefined || wanted.act !== undefined) {
      await this.#act(volumes, name, wanted, context);
      return;
    }
    const there = await found(volumes, name, context);
    if (there === undefined) await this.#make(volumes, name, wanted, context);
    else await this.#finish(volumes, name, there, wanted, context);
  }

  /** A volume that is there was perhaps made by a call like this one, which did not come to its end. */
  async #finish(
    volumes: HostVolumes,
    name: string,
    there: Volume,
    wanted: CreateOptions,
    context: CallContext,
  ): Promise<void> {
    const begun = await this.#names.begun("create", name);
    const isOurs = begun?.request === requestOf(wanted) && wanted.from !== undefined;
    const { size } = wanted;
    if (isOurs && size !== undefined && size > (there.size ?? 0))
      refuseOther(name, await grow(volumes, there, size, context), wanted);
    else refuseOther(name, there, wanted);
    if (begun !== undefined) await this.#names.end("create", name);
  }

  /** The key goes to the disk first: with it the server answers a repeated request with the same volume. */
  async #make(
    volumes: HostVolumes,
    name: string,
    wanted: CreateOptions,
    context: CallContext,
  ): Promise<void> {
    const request = requestOf(wanted);
    const begun = await this.#names.begun("create", name);
    const earlier = begun?.request === request ? begun.key : undefined;
    try {
      const isMade =
        earlier !== undefined && (await repeated(volumes, name, wanted, earlier, context));
      if (!isMade) {
        const key = randomUUID();
        await this.#names.begin("create", name, { key, request, time: Date.now() });
        await makeVolume(volumes, name, wanted, { ...context, idempotencyKey: key });
      }
    } catch (error) {
      // Where it is certain that nothing was made, the next try is a new one.
      if (!isUndecided(error)) await this.#names.end("create", name);
      const isTaken = error instanceof StorageError && error.code === "already-exists";
      const other = isTaken ? await found(volumes, name, context) : undefined;
      if (other === undefined) throw error;
      refuseOther(name, other, wanted);
    }
    await this.#names.end("create", name);
    await this.#names.end("remove", name);
  }

  /** What is done with a volume that is there. The name stands for what comes of it. */
  async #act(
    volumes: HostVolumes,
    name: string,
    { act, size, given }: CreateOptions,
    context: CallContext,
  ): Promise<void> {
    const alias = await this.#names.find(name);
    if (act === undefined) {
      if (Object.keys(given).length === 0) return;
      throw taken(
        name,
        `stands for the ${alias?.kind} ${alias?.id}, which has no options of its own`,
      );
    }
    const volume = await volumes.host.find(act.volume, context);
    const kind = act.kind === "snapshot" ? "snapshot" : "volume";
    const isOther =
      alias !== undefined &&
      (alias.kind !== kind || (kind === "volume" ? alias.id : alias.volumeID) !== volume.id);
    if (isOther) throw taken(name, `stands for the ${alias.kind} ${alias.id} already`);
    if (alias === undefined && volume.name !== name && volume.id !== name) {
      const other = await found(volumes, name, context);
      if (other !== undefined)
        throw taken(name, `is the name of volume ${other.id}; choose another for this`);
    }
    await this.#names.end("remove", name);
    if (act.kind === "snapshot") {
      await this.#snapshot(volumes, name, volume, context);
      return;
    }
    if (size !== undefined) {
      await grow(volumes, volume, size, context);
      // Where it is mounted here, its file system grows with it.
      await volumes.expanded(volume.id, context);
    }
    // A volume's own name needs no other.
    if (volume.name !== name && volume.id !== name)
      await this.#names.set({ name, kind: "volume", id: volume.id });
  }

  async #snapshot(
    { host }: HostVolumes,
    name: string,
    volume: Volume,
    context: CallContext,
  ): Promise<void> {
    if (volume.name === name || volume.id === name)
      throw taken(name, "is the volume itself; give the snapshot another name");
    const all = await host.service.snapshotsByService({ service: host.name }, undefined, context);
    const there = Object.values(all).find((one) => one.volumeID === volume.id && one.name === name);
    const params = { service: host.name, volumeID: volume.id };
    const snapshot: Snapshot =
      there ?? (await host.service.volumeSnapshot(params, { snapshotName: name }, context));
    await this.#names.set({ name, kind: "snapshot", id: snapshot.id, volumeID: volume.id });
  }
}

/** Two equal requests have the same one. */
function requestOf(wanted: CreateOptions): string {
  return createHash("sha256").update(JSON.stringify(wanted)).digest("base64url");
}

function checkName(name: string): void {
  if (name === "")
    throw new StorageError("invalid-argument", "missing volume name or ID: give the volume a name");
  const result = v.safeParse(Name, name);
  if (result.success) return;
  throw new StorageError(
    "invalid-argument",
    `"${name.slice(0, 80)}" cannot be a volume's name: it ${result.issues[0].message}`,
  );
}

function taken(name: string, why: string): StorageError {
  return new StorageError("already-exists", `${name} ${why}`, { name });
}

function refuseOther(name: string, volume: Volume, wanted: CreateOptions): void {
  const other = differences(volume, wanted);
  if (other.length === 0) return;
  throw taken(
    name,
    `is there already (volume ${volume.id}) with other options: ${other.join("; ")}; choose another name, leave these options out, or say resize=${name} to grow it`,
  );
}

/** Whether the request may have been carried out though no answer says so. */
function isUndecided(error: unknown): boolean {
  if (!(error instanceof StorageError)) return true;
  return ["unavailable", "deadline-exceeded", "cancelled"].includes(error.code);
}

/** The volume that a name or id leads to. @throws {StorageError} when it leads to several */
async function found(
  { host }: HostVolumes,
  name: string,
  context: CallContext,
): Promise<Volume | undefined> {
  const filter = filterFor(name);
  const params = { service: host.name, ...(filter !== undefined && { filter }) };
  const volumes = await host.service.volumesByService(params, undefined, context);
  const isThere = Object.values(volumes).some((one) => one.id === name || one.name === name);
  return isThere ? findNamed("volume", name, { [host.name]: volumes }).object : undefined;
}

/** Asks again for what an earlier call asked for. @returns whether the volume is there now */
async function repeated(
  volumes: HostVolumes,
  name: string,
  wanted: CreateOptions,
  key: string,
  context: CallContext,
): Promise<boolean> {
  try {
    await makeVolume(volumes, name, wanted, { ...context, idempotencyKey: key });
  } catch (error) {
    // The server remembers failures, too; this call is to be tried anew.
    if (isUndecided(error)) throw error;
    return false;
  }
  // It may have been made, and removed since.
  return (await found(volumes, name, context)) !== undefined;
}

async function makeVolume(
  volumes: HostVolumes,
  name: string,
  wanted: CreateOptions,
  context: CallContext,
): Promise<void> {
  const { from, fromSnapshot, given } = wanted;
  if (from !== undefined) await copy(volumes, name, from, wanted, context);
  else if (fromSnapshot !== undefined) await restore(volumes, name, fromSnapshot, wanted, context);
  else await volumes.create(name, given, context);
}

async function copy(
  { host }: HostVolumes,
  name: string,
  from: string,
  { size, given }: CreateOptions,
  context: CallContext,
): Promise<void> {
  const source = await host.find(from, context);
  if (size !== undefined && size < (source.size ?? 0))
    throw new StorageError(
      "invalid-argument",
      `a copy of ${from} needs at least its ${source.size} GiB, not ${size}`,
      { volumeID: source.id },
    );
  const params = { service: host.name, volumeID: source.id };
  const made = await host.service.volumeCopy(params, { volumeName: name, opts: given }, context);
  if (size === undefined || size === made.size) return;
  try {
    await grow({ host }, made, size, context);
  } catch (error) {
    // A copy of the wrong size is not what was asked for.
    await host.service.volumeRemove({ service: host.name, volumeID: made.id }, undefined, {});
    throw error;
  }
}

async function grow(
  { host }: Pick<HostVolumes, "host">,
  volume: Volume,
  size: number,
  context: CallContext,
): Promise<Volume> {
  const params = { service: host.name, volumeID: volume.id };
  const { idempotencyKey: _key, ...own } = context;
  return host.service.volumeExpand(params, { size }, own);
}

async function restore(
  { host }: HostVolumes,
  name: string,
  from: string,
  { size, type, iops, availabilityZone, given }: CreateOptions,
  context: CallContext,
): Promise<void> {
  const filter = filterFor(from);
  const params = { service: host.name, ...(filter !== undefined && { filter }) };
  const all = await host.service.snapshotsByService(params, undefined, context);
  const { id } = findNamed("snapshot", from, { [host.name]: all }).object;
  const body = {
    name,
    ...(size !== undefined && { size }),
    ...(type !== undefined && { type }),
    ...(iops !== undefined && { iops }),
    ...(availabilityZone !== undefined && { availabilityZone }),
    opts: given,
  };
  await host.service.volumeCreateFromSnapshot(
    { service: host.name, snapshotID: id },
    body,
    context,
  );
}
