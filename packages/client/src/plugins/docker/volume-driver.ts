/** The operations of Docker's volume protocol over the volumes of one service, as this host uses them. */
import { notFound, StorageError } from "@libstorage/model";
import type { CallContext, Snapshot, Volume, VolumeMap } from "@libstorage/model";
import { likelyIDs } from "../../host/identity.js";
import { usesOf } from "../../host/mount-records.js";
import type { HostVolumes, MountRecordFile } from "../../host/index.js";
import type { PluginHost } from "../plugin-host.js";
import type { PluginLog } from "../log.js";
import { Creation } from "./creation.js";
import type { Alias, Names } from "./names.js";
import { readOptions } from "./options.js";
import { statusOf } from "./status.js";
import type { DockerVolume, LocalState } from "./status.js";
import { untilAnswered } from "./server-wait.js";

export interface VolumeDriverOptions {
  readonly host: PluginHost;
  readonly names: Names;
  readonly log: PluginLog;
  /** How long a mount waits for a server that does not answer at all. */
  readonly serverWaitMs: number;
}

/** A list as it was sent last, and what it was made of. */
interface Listed {
  readonly found: VolumeMap;
  readonly here: string;
  readonly text: Buffer;
}

/** Attachments, so that it can be said who has a volume. */
const ATTACHMENTS = 1;
/** An attachment state: this host has it. */
const ATTACHED_HERE = 2;

export class VolumeDriver {
  readonly #options: VolumeDriverOptions;
  readonly #creation: Creation;
  #listed: Listed | undefined;
  /** The ids of names that were mounted. */
  readonly #ids = new Map<string, string>();

  constructor(options: VolumeDriverOptions) {
    this.#options = options;
    this.#creation = new Creation(options.names);
  }

  async create(
    name: string,
    options: Readonly<Record<string, string>>,
    context: CallContext,
  ): Promise<void> {
    const wanted = readOptions(options);
    const volumes = await this.#volumes(context);
    const isDone = await this.#creation.create(volumes, name, wanted, context);
    if (!isDone) this.#options.log.warn({ volume: name }, "nothing is created: create.disable");
  }

  /** Nothing, when removing is switched off: neither a volume, nor a snapshot, nor a name. */
  async remove(name: string, context: CallContext): Promise<void> {
    const { names, log } = this.#options;
    const volumes = await this.#volumes(context);
    if (volumes.operations.remove.disable) {
      log.warn({ volume: name }, "nothing is removed: remove.disable");
      return;
    }
    this.#ids.delete(name);
    const alias = await names.find(name);
    if (alias !== undefined) {
      await this.#beginRemove(name);
      await this.#removeAlias(volumes, alias, context);
      return;
    }
    const record = await volumes.local.named(name);
    if (record !== undefined && usesOf(record) > 0) throw inUse(name, record);
    // What is mounted without a use is what an unmount left.
    if (record !== undefined) await volumes.unmount(record.volumeID, { force: true }, context);
    const wasBegun = await this.#beginRemove(name);
    try {
      await volumes.remove(name, context);
    } catch (error) {
      const isGone = error instanceof StorageError && error.code === "not-found";
      if (isGone && !wasBegun) await names.end("remove", name);
      if (!isGone || !wasBegun) throw error;
    }
    await names.see(name, undefined);
  }

  /** Of two equal calls the first may have removed it, and its answer was lost. @returns whether there was one */
  async #beginRemove(name: string): Promise<boolean> {
    const { names } = this.#options;
    if ((await names.begun("remove", name)) !== undefined) return true;
    await names.begin("remove", name, { key: "", request: "", time: Date.now() });
    return false;
  }

  async #removeAlias(volumes: HostVolumes, alias: Alias, context: CallContext): Promise<void> {
    if (alias.kind === "snapshot") {
      const params = { service: volumes.host.name, snapshotID: alias.id };
      await volumes.host.service
        .snapshotRemove(params, undefined, context)
        .catch((error: unknown) => {
          if (!(error instanceof StorageError) || error.code !== "not-found") throw error;
        });
    }
    await this.#options.names.forget(alias.name);
    await this.#options.names.see(alias.name, undefined);
  }

  async mount(name: string, user: string, context: CallContext): Promise<string> {
    const { serverWaitMs, names } = this.#options;
    return untilAnswered(serverWaitMs, context, async () => {
      const volumes = await this.#volumes(context);
      const target = await this.#target(name);
      const likelyID = this.#ids.get(name) ?? (await names.seen(name))?.id;
      const options = {
        create: false,
        ...(user !== "" && { user }),
        ...(likelyID !== undefined && target === name && { likelyID }),
      };
      const { path, volumeID } = await volumes.mount(target, options, context);
      this.#ids.set(name, volumeID);
      return path;
    });
  }

  async unmount(name: string, user: string, context: CallContext): Promise<void> {
    const volumes = await this.#volumes(context);
    const target = await this.#target(name);
    const { seenBy = [] } = await volumes.unmount(target, user === "" ? {} : { user }, context);
    if (seenBy.length > 0)
      this.#options.log.warn(
        { volume: name, seenBy },
        "a container still sees the volume, so it stays mounted until that ends",
      );
  }

  /** The folder of a volume that is mounted here, empty for every other. Asks no server. */
  async path(name: string, context: CallContext): Promise<string> {
    const volumes = await this.#volumes(context);
    return volumes.path(await this.#target(name));
  }

  /**
   * While no server answers, a volume that was seen before is shown as it was: the daemon takes an error
   * for "no such volume", and would make a local one in its place, or leave this one mounted for ever.
   */
  async get(name: string, context: CallContext): Promise<DockerVolume> {
    const { names } = this.#options;
    const volumes = await this.#volumes(context);
    const alias = await names.find(name);
    if (alias?.kind === "snapshot") return snapshotVolume(volumes, alias, context);
    try {
      const volume = await volumes.host.find(alias?.id ?? name, context);
      const snapshots = await snapshotsOf(volumes, volume.id, context);
      await names.see(name, volume);
      return dockerVolume(
        name,
        volume,
        volumes.host.name,
        await localOf(volumes, volume, volume.attachmentState !== ATTACHED_HERE),
        snapshots,
      );
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      if (error.code === "not-found") await names.see(name, undefined);
      const seen = isAway(error) ? await names.seen(name) : undefined;
      if (seen === undefined) throw error;
      const local = await localOf(volumes, seen, false);
      const shown = dockerVolume(name, seen, volumes.host.name, local);
      return { ...shown, Status: { ...shown.Status, health: `not known: ${error.message}` } };
    }
  }

  /**
   * One call to the server, however many volumes there are. As long as nothing has changed there and here,
   * the answer is the one before.
   * @returns the answer as it is sent
   */
  async list(context: CallContext): Promise<Buffer> {
    const volumes = await this.#volumes(context);
    const { host } = volumes;
    const params = { service: host.name, attachments: ATTACHMENTS };
    const instanceIDs = likelyIDs(volumes.local.executors);
    const [found, local, aliases] = await Promise.all([
      host.service.volumesByService(params, undefined, { ...context, instanceIDs }),
      localStates(volumes),
      this.#options.names.all(),
    ]);
    const here = JSON.stringify([[...local], aliases]);
    const before = this.#listed;
    if (before?.found === found && before.here === here) return before.text;
    const shown = shownVolumes(found, host.name, local, aliases);
    const text = Buffer.from(`${JSON.stringify({ Volumes: shown })}\n`);
    this.#listed = { found, here, text };
    return text;
  }

  #volumes(context: CallContext): Promise<HostVolumes> {
    return this.#options.host.volumes(context);
  }

  /** The volume that a name stands for. */
  async #target(name: string): Promise<string> {
    const alias = await this.#options.names.find(name);
    if (alias === undefined) return name;
    if (alias.kind === "volume") return alias.id;
    throw new StorageError(
      "failed-precondition",
      `${name} is a snapshot of volume ${alias.volumeID}, which cannot be mounted; create a volume with fromSnapshot=${alias.id}`,
      { snapshotID: alias.id },
    );
  }
}

function shownVolumes(
  found: VolumeMap,
  service: string,
  local: ReadonlyMap<string, LocalState>,
  aliases: readonly Alias[],
): readonly DockerVolume[] {
  const all = Object.values(found);
  const counts = new Map<string, number>();
  for (const { name } of all) counts.set(name, (counts.get(name) ?? 0) + 1);
  const show = (name: string, volume: Volume): DockerVolume =>
    dockerVolume(name, volume, service, local.get(volume.id));
  const shown = all
    .filter(({ name }) => name !== "")
    // A name that several have leads to none of them; their ids do.
    .map((volume) => show(counts.get(volume.name) === 1 ? volume.name : volume.id, volume));
  for (const alias of aliases) {
    const volume = alias.kind === "volume" ? found[alias.id] : undefined;
    if (volume !== undefined) shown.push(show(alias.name, volume));
    if (alias.kind === "snapshot") shown.push(snapshotEntry(alias, service));
  }
  return shown;
}

function inUse(name: string, { mountPoint, namedUsers, users }: MountRecordFile): StorageError {
  const containers = namedUsers.map((one) => one.slice(0, 12)).join(", ");
  const by = namedUsers.length > 0 ? `by the containers ${containers}` : `${users} times`;
  return new StorageError(
    "failed-precondition",
    `volume ${name} is in use on this host ${by}, at ${mountPoint}; end that first`,
    { users: namedUsers },
  );
}

/** Whether the server could not be asked. */
function isAway({ code }: StorageError): boolean {
  return code === "unavailable" || code === "deadline-exceeded" || code === "cancelled";
}

async function localOf(
  { local }: HostVolumes,
  volume: Volume,
  isLost: boolean,
): Promise<LocalState | undefined> {
  const record = await local.records.read(volume.id);
  if (record === undefined) return undefined;
  return { record, path: await local.pathOf(record), isLost };
}

async function localStates({ local }: HostVolumes): Promise<ReadonlyMap<string, LocalState>> {
  const records = await local.records.all();
  const states = await Promise.all(
    records.map(async (record) => {
      const path = await local.pathOf(record);
      return [record.volumeID, { record, path, isLost: false }] as const;
    }),
  );
  return new Map(states);
}

function dockerVolume(
  name: string,
  volume: Volume,
  service: string,
  local: LocalState | undefined,
  snapshots?: readonly Snapshot[],
): DockerVolume {
  return {
    Name: name,
    Mountpoint: local?.path ?? "",
    Status: statusOf(volume, service, local, snapshots),
  };
}

async function snapshotsOf(
  { host }: HostVolumes,
  volumeID: string,
  context: CallContext,
): Promise<readonly Snapshot[]> {
  const all = await host.service
    .snapshotsByService({ service: host.name }, undefined, context)
    .catch((error: unknown) => {
      // Not every driver has snapshots.
      if (error instanceof StorageError && error.code === "unimplemented") return {};
      throw error;
    });
  return Object.values(all).filter((snapshot) => snapshot.volumeID === volumeID);
}

async function snapshotVolume(
  { host }: HostVolumes,
  alias: Alias,
  context: CallContext,
): Promise<DockerVolume> {
  const params = { service: host.name, snapshotID: alias.id };
  const found = await host.service.snapshotInspect(params, undefined, context);
  if (found.id !== alias.id) throw notFound("snapshot", alias.id);
  const { Status, ...entry } = snapshotEntry(alias, host.name);
  return {
    ...entry,
    Status: { ...Status, status: found.status ?? "", size: found.volumeSize ?? 0 },
  };
}

function snapshotEntry({ name, id, volumeID = "" }: Alias, service: string): DockerVolume {
  return { Name: name, Mountpoint: "", Status: { id, kind: "snapshot", name, service, volumeID } };
}
