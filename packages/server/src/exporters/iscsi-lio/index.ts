/** iscsi-lio: block devices and raw files for other hosts, through the kernel's iSCSI target. */
import { defineExporter, restoreEach } from "../../core/exporter.js";
import type { Door, Exporter, Hold, NotRestored, Session, Wanted } from "../../core/exporter.js";
import type { Ability, OpContext, VolumeRecord } from "../../core/driver.js";
import { chapAbility, portalAbility } from "../iscsi/abilities.js";
import { credentialsFor } from "../iscsi/chap.js";
import {
  deviceNames,
  doorFields,
  holdsThrough,
  readHold,
  readHolds,
  readableHold,
} from "../iscsi/door.js";
import type { IscsiDoor, IscsiHold } from "../iscsi/door.js";
import {
  backstoreName,
  checkInitiatorName,
  nonce,
  ownerInBackstore,
  ownerInTarget,
  serialOf,
  serviceTarget,
  volumeTarget,
} from "../iscsi/names.js";
import type { TargetName } from "../iscsi/names.js";
import { isWildcard, listeningPortals, portalsFor } from "../iscsi/portals.js";
import { checkInitiatorFree } from "../iscsi/initiators.js";
import { ownerOf, serverID } from "../server-id.js";
import { watchExports } from "../iscsi/watch.js";
import { Backstores } from "./backstores.js";
import { LioConfig } from "./config.js";
import { openTarget } from "./kernel.js";
import { SavedFile } from "./saved-file.js";
import type { SavedExport } from "./saved-file.js";
import { parseSessionInfo } from "./sessions.js";
import { Targets } from "./targets.js";

const NAME = "iscsi-lio";

/** Higher numbers are spelled in another way on the wire, which not every initiator knows. */
const MAX_LUN = 255;

/** How often it is looked whether exports are still there. */
const LOOK_MS = 15_000;

class LioExporter implements Exporter {
  readonly name = NAME;
  readonly sources = ["block", "file"] as const;
  readonly #config: LioConfig;
  readonly #names: TargetName;
  readonly #targets: Targets;
  readonly #backstores: Backstores;
  readonly #saved: SavedFile;
  /** What is exported now, by target and LUN. */
  readonly #exports = new Map<string, SavedExport>();
  /** What could not be made at start, by target and LUN. */
  readonly #failed = new Set<string>();
  #serviceTarget: string;
  #nextLun = 1;

  constructor(config: LioConfig, names: TargetName, root: string, saved: SavedFile) {
    this.#config = config;
    this.#names = names;
    this.#targets = new Targets(root);
    this.#backstores = new Backstores(root);
    this.#saved = saved;
    this.#serviceTarget = serviceTarget(names, nonce());
  }

  async plan(volume: VolumeRecord, { holder, facts, epoch }: Wanted): Promise<Door> {
    const initiator = checkInitiatorName(facts.initiatorName, holder.id);
    const others = [...this.#exports.values()].map(({ hold }) => hold);
    checkInitiatorFree(initiator, holder.id, others, volume);
    // All who hold a volume see one device, also when this server's own number was lost in between.
    const [other] = holdsThrough(NAME, volume);
    const serial = other?.door.serial ?? serialOf(this.#names.owner, volume.id);
    const { deviceName, wwid } = deviceNames(serial);
    const door: IscsiDoor = {
      ...this.#place(volume.id, epoch),
      portals: portalsFor(this.#config.portals, facts.addresses ?? []),
      initiator,
      serial,
      wwid,
      chap: this.#config.chap.mode,
      iser: this.#config.iser,
    };
    await credentialsFor(this.#config.chap.secretsFile, door);
    return { deviceName, fields: doorFields(door) };
  }

  /**
   * A place that no hold has had. A service's target takes each number once; when they are used up, and when the
   * server starts, a new target is begun beside it.
   */
  #place(volumeID: string, epoch: number): Pick<IscsiDoor, "iqn" | "lun"> {
    if (this.#config.target === "volume")
      return { iqn: volumeTarget(this.#names, volumeID, epoch), lun: 1 };
    if (this.#nextLun > MAX_LUN) {
      this.#serviceTarget = serviceTarget(this.#names, nonce());
      this.#nextLun = 1;
    }
    const lun = this.#nextLun;
    this.#nextLun += 1;
    return { iqn: this.#serviceTarget, lun };
  }

  async export(hold: Hold, context: OpContext): Promise<void> {
    await this.#make(readHold(hold), context);
    await this.#save(context);
  }

  async #make(hold: IscsiHold, context: OpContext): Promise<void> {
    const { door, volume } = hold;
    const listening = this.#listening(door);
    const credentials = await credentialsFor(this.#config.chap.secretsFile, door);
    const name = nameOfBackstore(hold, this.#names.owner);
    const spec = {
      name,
      serial: door.serial,
      volume,
      isDiscardAllowed: this.#config.discard,
    };
    const backstore = await this.#backstores.ensure(spec, context);
    const admission = { door, credentials, listening, backstore, backstoreName: name };
    this.#exports.set(keyOf(door), { hold, backstoreName: name, credentials, listening });
    await this.#targets.admit(admission, context);
    this.#failed.delete(keyOf(door));
  }

  /** The target listens where the holder was told, or on every address when that is configured. */
  #listening(door: IscsiDoor): SavedExport["listening"] {
    const configured = listeningPortals(this.#config.portals);
    const wildcards = configured.filter(isWildcard);
    return wildcards.length > 0 ? wildcards : listeningPortals(door.portals);
  }

  async unexport(hold: Hold, context: OpContext): Promise<void> {
    const own = readableHold(hold);
    // A record that was damaged names no target, so everything goes that no other record names.
    if (own === undefined)
      return this.#withdrawUnknown(
        [...this.#exports.values()].map((one) => one.hold),
        context,
      );
    const { door } = own;
    this.#failed.delete(keyOf(door));
    // Out of the saved file first: what is cut off must not come back with the next boot.
    this.#exports.delete(keyOf(door));
    await this.#save(context);
    await this.#targets.expel(own, context);
    await this.#backstores.remove(nameOfBackstore(own, this.#names.owner), context);
  }

  async expanded(volume: VolumeRecord, context: OpContext): Promise<void> {
    for (const one of this.#exports.values())
      if (one.hold.volume.id === volume.id) {
        this.#exports.set(keyOf(one.hold.door), { ...one, hold: { ...one.hold, volume } });
        await this.#backstores.resize(one.backstoreName, volume, context);
      }
    await this.#save(context);
  }

  async restore(holds: readonly Hold[], context: OpContext): Promise<readonly NotRestored[]> {
    const { known, failed } = readHolds(holds);
    const backstores = await this.#backstores.scan();
    await this.#withdrawUnknown(known, context);
    const unmade = await restoreEach(known, (hold) => this.#make(hold, context));
    for (const { hold } of unmade) this.#failed.add(keyOf(hold.door));
    const used = new Set(known.map((hold) => nameOfBackstore(hold, this.#names.owner)));
    for (const name of backstores)
      if (ownerInBackstore(name) === this.#names.owner && !used.has(name))
        await this.#backstores.remove(name, context);
    await this.#save(context);
    return [...failed, ...unmade];
  }

  /** Own targets, or parts of them, that no record names: what a crash or an old saved file left. */
  async #withdrawUnknown(known: readonly IscsiHold[], context: OpContext): Promise<void> {
    const { owner } = this.#names;
    for (const iqn of await this.#targets.all()) {
      if (ownerInTarget(iqn) !== owner) continue;
      const mine = known.filter(({ door }) => door.iqn === iqn);
      const places = new Set(mine.map(({ door }) => `${door.initiator} ${door.lun}`));
      const mapped = await this.#targets.mapped(iqn);
      const isKnown = mapped.every(({ initiator, lun }) => places.has(`${initiator} ${lun}`));
      // It is made again below, with those who belong there.
      if (mine.length === 0 || !isKnown) await this.#targets.remove(iqn, context);
    }
  }

  watch(onLost: () => void): () => void {
    const watched = {
      everyMs: LOOK_MS,
      // A tool may just be putting things in order.
      looks: 2,
      isLost: async () => !(await this.#areAllOpen()),
      hasFailed: () => this.#failed.size > 0,
    };
    return watchExports(watched, onLost);
  }

  async #areAllOpen(): Promise<boolean> {
    for (const [key, { hold }] of this.#exports)
      if (!(await this.#targets.isOpen(hold.door)) && this.#exports.has(key)) return false;
    return true;
  }

  async sessions(volumes: readonly VolumeRecord[]): Promise<readonly Session[]> {
    const ids = new Set(volumes.map(({ id }) => id));
    const found = await Promise.all(
      [...this.#exports.values()].map(async ({ hold: { door, volume, attachment } }) => {
        if (!ids.has(volume.id)) return [];
        const info = parseSessionInfo((await this.#targets.sessionInfo(door)) ?? "");
        const { id: instanceID } = attachment.instanceID;
        return info === undefined
          ? []
          : [{ volumeID: volume.id, instanceID, peer: door.initiator, ...info }];
      }),
    );
    return found.flat();
  }

  async abilities(): Promise<readonly Ability[]> {
    return [
      portalAbility(() => listeningPortals(this.#config.portals)),
      chapAbility(this.#config.chap.mode),
      {
        name: "exports after a boot",
        available: this.#saved.path !== undefined,
        detail:
          this.#saved.path ?? "by this server alone, once it starts: targetcli is not installed",
      },
    ];
  }

  async close(): Promise<void> {}

  async #save(context: OpContext): Promise<void> {
    await this.#saved.save(() => [...this.#exports.values()], context);
  }
}

const keyOf = ({ iqn, lun }: IscsiDoor): string => `${iqn} ${lun}`;

/** One backstore for all who hold the volume. */
function nameOfBackstore({ volume, door }: IscsiHold, owner: string): string {
  return backstoreName(ownerInTarget(door.iqn) ?? owner, volume.id, door.serial);
}

export const iscsiLio = defineExporter({
  name: NAME,
  config: LioConfig,
  open: async (config, context) => {
    const owner = ownerOf(await serverID(context), context.service);
    const names = { prefix: config.iqnPrefix, owner, service: context.service };
    const root = await openTarget(context);
    return new LioExporter(config, names, root, await SavedFile.open(config.savedFile, owner));
  },
});
