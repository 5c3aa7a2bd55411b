/**
 * nbd: images and block devices for other hosts, as NBD over TCP. A storage daemon per volume serves them on a
 * Unix socket; the gate lets holders through to them.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import { defineExporter } from "../../core/exporter.js";
import type { Door, Exporter, Hold, Session, Wanted } from "../../core/exporter.js";
import type { Ability, OpContext, VolumeRecord } from "../../core/driver.js";
import { Daemon } from "../qemu-storage-daemon/daemon.js";
import { isEncrypted, isReadOnly, nodeOf } from "../qemu-storage-daemon/nodes.js";
import { killIn, pidIn } from "../qemu-storage-daemon/process.js";
import { NbdConfig } from "./config.js";
import { Gate, isLoopback } from "./gate.js";

const NAME = "nbd";

/** What a holder is told. No secrets. */
const DoorFields = v.object({
  /** `HOST:PORT`. */
  address: v.string(),
  /** The export's name: of this hold, and never of another one. */
  export: v.pipe(v.string(), v.regex(/^[A-Za-z0-9._-]{1,200}$/)),
  tls: v.picklist(["required", "none"]),
  access: v.picklist(["rw", "ro"]),
  /** Names and addresses of the holder's host, by which it is known. */
  clients: v.string(),
});
type DoorFields = v.InferOutput<typeof DoorFields>;

/** @throws {StorageError} `data-loss` for a record that was changed by hand */
function fieldsOf({ volume, attachment }: Hold): DoorFields {
  const parsed = v.safeParse(DoorFields, attachment.fields);
  if (parsed.success) return parsed.output;
  throw new StorageError(
    "data-loss",
    `the record of volume ${volume.id} does not say how ${attachment.instanceID.id} reaches it; detach it there with force and attach it again`,
    { volumeID: volume.id },
  );
}

/** Ids of exports have at most 31 characters in some places. */
function short(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

/** As it is, where a URI can carry it; two names never become one. */
function plainName(text: string): string {
  return /^[A-Za-z0-9._-]{1,160}$/.test(text) ? text : `x-${short(text)}`;
}

class NbdExporter implements Exporter {
  readonly name = NAME;
  readonly sources = ["file", "block"] as const;
  readonly #config: NbdConfig;
  readonly #service: string;
  readonly #folder: string;
  readonly #gate: Gate;
  readonly #daemons = new Map<string, Promise<Daemon>>();
  readonly #expected = new Set<Daemon>();
  #onLost: () => void = () => {};

  constructor(config: NbdConfig, service: string, folder: string, gate: Gate) {
    this.#config = config;
    this.#service = service;
    this.#folder = folder;
    this.#gate = gate;
  }

  #folderOf(volumeID: string): string {
    return join(this.#folder, short(volumeID));
  }

  async plan(volume: VolumeRecord, { holder, facts, epoch }: Wanted): Promise<Door> {
    // What cannot be opened is said before anything is written down.
    nodeOf(volume.source, "volume", true);
    this.#checkKey(volume);
    const { host, port } = this.#gate.address;
    const address = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
    const name = `${plainName(`${this.#service}.${volume.id}`)}.${epoch}`;
    const fields: DoorFields = {
      address,
      export: name,
      tls: this.#config.tls === undefined ? "none" : "required",
      access: isReadOnly(volume.source) ? "ro" : "rw",
      clients: [holder.id, facts.hostName, ...(facts.addresses ?? [])].join(","),
    };
    return { deviceName: `/dev/disk/by-id/nbd-${name}`, fields };
  }

  #checkKey({ id, source }: VolumeRecord): void {
    if (!isEncrypted(source) || this.#config.encryptionKeyFile !== undefined) return;
    throw new StorageError(
      "failed-precondition",
      `volume ${id} is encrypted, and the exporter has no key; set "encryptionKeyFile" for nbd as for the driver`,
      { volumeID: id },
    );
  }

  async export(hold: Hold, context: OpContext): Promise<void> {
    const { volume, attachment } = hold;
    const fields = fieldsOf(hold);
    const daemon = await this.#daemonFor(volume, context);
    const description = `volume ${volume.id} of service ${this.#service}`;
    const isWritable = fields.access === "rw";
    const id = `e-${short(fields.export)}`;
    await daemon.addNbd({ id, name: fields.export, isWritable, description });
    const clients = fields.clients.toLowerCase().split(",");
    this.#gate.admit(fields.export, {
      volumeID: volume.id,
      socket: daemon.socket,
      names: [attachment.instanceID.id.toLowerCase(), ...clients],
      addresses: clients,
    });
  }

  #daemonFor({ id, source }: VolumeRecord, context: OpContext): Promise<Daemon> {
    const known = this.#daemons.get(id);
    if (known !== undefined) return known;
    const keyFile = this.#config.encryptionKeyFile;
    const wanted = { source, isWritable: !isReadOnly(source), keyFile };
    const opening = Daemon.open(this.#folderOf(id), wanted, context);
    const forget = (): void => {
      if (this.#daemons.get(id) === opening) this.#daemons.delete(id);
    };
    const watched = (daemon: Daemon): void => {
      void daemon.closed.then(() => {
        forget();
        if (!this.#expected.delete(daemon)) this.#onLost();
      });
    };
    opening.then(watched, forget);
    this.#daemons.set(id, opening);
    return opening;
  }

  async unexport(hold: Hold, context: OpContext): Promise<void> {
    const { volume } = hold;
    const { export: name } = fieldsOf(hold);
    await this.#gate.expel(name);
    const folder = this.#folderOf(volume.id);
    const daemon = await (this.#daemons.get(volume.id) ?? Daemon.find(folder));
    // Without a process there is nobody who could write.
    if (daemon === undefined) return;
    this.#expected.add(daemon);
    const isProven = await daemon.removeExport(`e-${short(name)}`).catch(() => false);
    const left = isProven ? await daemon.exports().catch(() => []) : [];
    if (isProven && left.length > 0) {
      this.#expected.delete(daemon);
      return;
    }
    // Its last export, or one that does not end: then the end of the process is the proof.
    if (!isProven) await killIn(folder);
    this.#daemons.delete(volume.id);
    await daemon.stop(context);
    if (!isProven) this.#onLost();
  }

  async restore(
    holds: readonly Hold[],
    context: OpContext,
  ): Promise<readonly { readonly hold: Hold; readonly error: unknown }[]> {
    await this.#endUnknown(holds, context);
    const failed: { hold: Hold; error: unknown }[] = [];
    for (const hold of holds)
      await this.export(hold, context).catch((error: unknown) => failed.push({ hold, error }));
    for (const { id } of new Map(holds.map(({ volume }) => [volume.id, volume])).values())
      await this.#removeUnknown(id, holds);
    return failed;
  }

  /** Daemons whose volumes nobody holds: what a crash left. */
  async #endUnknown(holds: readonly Hold[], context: OpContext): Promise<void> {
    if (!existsSync(this.#folder)) return;
    const known = new Set(holds.map(({ volume }) => this.#folderOf(volume.id)));
    for (const name of readdirSync(this.#folder)) {
      const folder = join(this.#folder, name);
      if (known.has(folder) || !/^[\da-f]{16}$/.test(name)) continue;
      if (pidIn(folder) !== undefined) await killIn(folder);
      await context.files.removeTree(folder);
    }
  }

  /** Exports of a volume that no record names. */
  async #removeUnknown(volumeID: string, holds: readonly Hold[]): Promise<void> {
    const daemon = await this.#daemons.get(volumeID)?.catch(() => undefined);
    if (daemon === undefined) return;
    const names = holds.flatMap(({ volume, attachment }) =>
      volume.id === volumeID ? [`e-${short(attachment.fields?.["export"] ?? "")}`] : [],
    );
    for (const id of await daemon.exports()) if (!names.includes(id)) await daemon.removeExport(id);
  }

  watch(onLost: () => void): () => void {
    this.#onLost = onLost;
    return () => {
      this.#onLost = () => {};
    };
  }

  async sessions(volumes: readonly VolumeRecord[]): Promise<readonly Session[]> {
    const ids = new Set(volumes.map(({ id }) => id));
    return this.#gate.connections
      .filter(({ volumeID }) => ids.has(volumeID))
      .map(({ volumeID, peer, address }) => ({ volumeID, peer, address, state: "connected" }));
  }

  async abilities(context: OpContext): Promise<readonly Ability[]> {
    const { host, port } = this.#gate.address;
    const tls = this.#config.tls !== undefined;
    return [
      await toolAbility(context),
      { name: "NBD", available: true, detail: `served on ${host}:${port}` },
      {
        name: "NBD over TLS",
        available: tls,
        detail: tls ? "required, with client certificates" : "off: holders are known by address",
      },
    ];
  }

  /** Daemons go on; clients come again when the next server serves. */
  async close(): Promise<void> {
    this.#onLost = () => {};
    await this.#gate.close();
    for (const opening of this.#daemons.values())
      await opening.then((daemon) => daemon.release()).catch(() => {});
  }
}

async function toolAbility({ exec, signal }: OpContext): Promise<Ability> {
  const name = "qemu-storage-daemon";
  try {
    const { stdout } = await exec(name, ["--version"], signal);
    return { name, available: true, detail: stdout.split("\n", 1)[0] ?? "" };
  } catch (error) {
    const detail = `${(error as Error).message}; install Debian's qemu-system-common`;
    return { name, available: false, detail };
  }
}

/** @throws {StorageError} for an address that others can reach, without a word about who may */
function checkListen({ listen: { host }, tls, insecure }: NbdConfig): void {
  if (isLoopback(host) || tls !== undefined || insecure) return;
  throw new StorageError(
    "failed-precondition",
    `NBD on ${host} would let in whoever has the right address; set "tls", or "insecure: true" when the network is yours alone`,
    { listen: host },
  );
}

function checkAddress({ listen: { host }, address }: NbdConfig): void {
  if ((host !== "0.0.0.0" && host !== "::") || address !== undefined) return;
  throw new StorageError(
    "failed-precondition",
    `holders cannot be told to connect to ${host}; set "address" to one of this host's addresses`,
    { listen: host },
  );
}

export const nbd = defineExporter({
  name: NAME,
  config: NbdConfig,
  async open(config, context) {
    checkListen(config);
    checkAddress(config);
    const parent = config.folder ?? join(context.libFolder, NAME);
    await context.files.makeFolder(parent);
    // Daemons that no record of this service names are ended, so it has a folder of its own.
    const folder = join(parent, short(context.service).slice(0, 8));
    await context.files.makeFolder(folder);
    const gate = await Gate.open(config, context.log);
    return new NbdExporter(config, context.service, folder, gate);
  },
});
