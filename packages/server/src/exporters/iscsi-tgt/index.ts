/** iscsi-tgt: block devices and raw files for other hosts, through tgtd, for hosts whose kernel has no target. */
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import { defineExporter, restoreEach } from "../../core/exporter.js";
import type { Door, Exporter, Hold, NotRestored, Session, Wanted } from "../../core/exporter.js";
import type { Ability, OpContext, VolumeRecord } from "../../core/driver.js";
import { chapAbility, portalAbility } from "../iscsi/abilities.js";
import type { Credentials } from "../iscsi/chap.js";
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
import { checkInitiatorFree } from "../iscsi/initiators.js";
import {
  checkInitiatorName,
  ownerInTarget,
  serialOf,
  volumeTarget,
  wwnOf,
} from "../iscsi/names.js";
import type { TargetName } from "../iscsi/names.js";
import { listeningPortals, portalsFor } from "../iscsi/portals.js";
import { ownerOf, serverID } from "../server-id.js";
import { watchExports } from "../iscsi/watch.js";
import { refusedSource, sourceOf, usedBy } from "../iscsi/source.js";
import { Accounts } from "./accounts.js";
import { TgtConfig } from "./config.js";
import type { TgtTarget } from "./dump.js";
import { sharedDaemon } from "./shared.js";
import type { Shared } from "./shared.js";

const NAME = "iscsi-tgt";
const LUN = 1;

const CUT_MS = 30_000;
const POLL_MS = 20;
const LOOK_MS = 2_000;

class TgtExporter implements Exporter {
  readonly name = NAME;
  readonly sources = ["block", "file"] as const;
  readonly #config: TgtConfig;
  readonly #names: TargetName;
  readonly #shared: Shared;
  readonly #context: Pick<OpContext, "exec" | "files" | "log" | "progress">;
  readonly #exports = new Map<string, IscsiHold>();
  /** The targets of what could not be made at start. */
  readonly #failed = new Set<string>();
  /** Whether something that is exported may not be as it must be. */
  #isDamaged = false;

  constructor(
    config: TgtConfig,
    names: TargetName,
    shared: Shared,
    context: Pick<OpContext, "exec" | "files" | "log" | "progress">,
  ) {
    this.#config = config;
    this.#names = names;
    this.#shared = shared;
    this.#context = context;
  }

  get #adm() {
    return this.#shared.daemon.adm;
  }

  async plan(volume: VolumeRecord, { holder, facts, epoch }: Wanted): Promise<Door> {
    const initiator = checkInitiatorName(facts.initiatorName, holder.id);
    checkInitiatorFree(initiator, holder.id, [...this.#exports.values()], volume);
    const [other] = holdsThrough(NAME, volume);
    const serial = other?.door.serial ?? serialOf(this.#names.owner, volume.id);
    const { deviceName, wwid } = deviceNames(serial);
    const door: IscsiDoor = {
      iqn: volumeTarget(this.#names, volume.id, epoch),
      lun: LUN,
      portals: portalsFor(this.#config.portals, facts.addresses ?? []),
      initiator,
      serial,
      wwid,
      chap: this.#config.chap.mode,
      iser: false,
    };
    await credentialsFor(this.#config.chap.secretsFile, door);
    return { deviceName, fields: doorFields(door) };
  }

  async export(hold: Hold, context: OpContext): Promise<void> {
    const own = readHold(hold);
    const { door } = own;
    await this.#shared.locks.run("daemon", () => this.#shared.daemon.ensure(door.portals, context));
    const credentials = await credentialsFor(this.#config.chap.secretsFile, door);
    this.#exports.set(door.iqn, own);
    const there = await this.#find(door, context);
    if (there !== undefined) {
      if (isComplete(there, own, credentials))
        return this.#admit(there.tid, door, credentials, context);
      await this.#withdraw(there, context);
    }
    await this.#make(own, credentials, context);
  }

  /**
   * Lets the holder in, with its users bound before. Under one lock with all that changes accounts: while one is
   * replaced, its targets ask for no password, and nobody may be let in to them.
   */
  async #admit(
    tid: number,
    { initiator }: IscsiDoor,
    credentials: Credentials | undefined,
    context: OpContext,
  ): Promise<void> {
    const { accounts, locks } = this.#shared;
    await locks.run("accounts", async () => {
      if (credentials !== undefined) {
        await accounts.ensure(credentials, (iqn) => this.#isOurs(iqn), context);
        await accounts.bind(tid, credentials, context);
      }
      await this.#adm.allow(context, tid, initiator);
    });
  }

  /** The rule that lets the holder in comes last: until then nobody sees the target. */
  async #make(
    { door, volume }: IscsiHold,
    credentials: Credentials | undefined,
    context: OpContext,
  ): Promise<void> {
    // Of a missing file tgtd says only that the request is invalid; one that is in use it takes.
    const { kind, path } = await sourceOf(volume);
    const user = kind === "block" ? await usedBy(path) : undefined;
    if (user !== undefined)
      throw refusedSource(volume.id, `is at ${path}, which an export needs for itself: ${user}`);
    const tid = numberFor(door.iqn, await this.#adm.targets(context));
    await this.#adm.makeTarget(context, tid, door.iqn);
    await this.#adm.makeLun(context, tid, door.lun, path);
    await this.#adm.setLun(context, tid, door.lun, {
      vendor_id: "LIBSTORE",
      product_id: "VOLUME",
      product_rev: "1",
      scsi_sn: door.serial,
      // The device's name is made of it. Else it would be that of the first target of any other host.
      scsi_id: wwnOf(door.serial),
      ...(this.#config.discard && { thin_provisioning: "1" }),
    });
    await this.#admit(tid, door, credentials, context);
    this.#failed.delete(door.iqn);
  }

  /** Of any service of this server. */
  #isOurs(iqn: string): boolean {
    return this.#shared.owners.has(ownerInTarget(iqn) ?? "");
  }

  async #find({ iqn }: IscsiDoor, context: OpContext): Promise<TgtTarget | undefined> {
    return (await this.#adm.targets(context)).find((target) => target.iqn === iqn);
  }

  async unexport(hold: Hold, context: OpContext): Promise<void> {
    const own = readableHold(hold);
    if (own !== undefined) {
      this.#exports.delete(own.door.iqn);
      this.#failed.delete(own.door.iqn);
    }
    // With the daemon everything is gone that it let anyone do.
    if (!(await this.#shared.daemon.isUp(context))) return;
    if (own === undefined) {
      // A record that was damaged names no target, so everything goes that no other record names.
      await this.#withdrawUnknown(new Set(this.#exports.keys()), context);
      return;
    }
    const target = await this.#find(own.door, context);
    if (target !== undefined) await this.#withdraw(target, context);
    await this.#shared.locks.run("accounts", () => this.#shared.accounts.removeUnused(context));
  }

  /**
   * Nobody new, then nobody old, then the device: the daemon answers the removal of a LUN once the threads that
   * write to it have ended.
   */
  async #withdraw({ tid, iqn, acl, luns }: TgtTarget, context: OpContext): Promise<void> {
    for (const rule of acl) await this.#adm.disallow(context, tid, rule);
    await this.#endSessions(tid, iqn, context);
    for (const { lun } of luns) if (lun !== 0) await this.#adm.removeLun(context, tid, lun);
    await this.#adm.removeTarget(context, tid);
    const left = (await this.#adm.targets(context)).find((target) => target.iqn === iqn);
    if (left !== undefined) throw notCut(iqn, "tgtd still has its target");
  }

  async #endSessions(tid: number, iqn: string, context: OpContext): Promise<void> {
    const end = Date.now() + CUT_MS;
    for (;;) {
      const sessions = await this.#adm.connections(context, tid);
      if (sessions.length === 0) return;
      for (const { sid, cids } of sessions)
        for (const cid of cids) await this.#adm.endConnection(context, tid, sid, cid);
      if (Date.now() > end) throw notCut(iqn, `tgtd keeps ${sessions.length} of its sessions`);
      await sleep(POLL_MS);
    }
  }

  async expanded(volume: VolumeRecord, context: OpContext): Promise<void> {
    for (const [iqn, hold] of this.#exports) {
      if (hold.volume.id !== volume.id) continue;
      const grown = { ...hold, volume };
      this.#exports.set(iqn, grown);
      try {
        const target = await this.#find(hold.door, context);
        if (target !== undefined) await this.#reopen(target, grown, context);
      } catch (error) {
        this.#context.log.warn({ error: String(error), iqn }, "is exported anew, to grow");
        await this.#exportAnew(grown, context);
      }
    }
  }

  /** Where a step failed, the holder may be kept out: it is let in again, if not now then by the watch. */
  async #exportAnew(hold: IscsiHold, context: OpContext): Promise<void> {
    this.#isDamaged = true;
    const signal = AbortSignal.timeout(CUT_MS);
    await this.export(hold, { ...context, signal });
    this.#isDamaged = false;
  }

  /**
   * The daemon takes a size when it opens a device. The initiator is kept out for that moment: what it asks of a
   * device that is not there would fail for good, while a connection that is gone it makes anew.
   */
  async #reopen(
    { tid, iqn }: TgtTarget,
    { door, volume }: IscsiHold,
    context: OpContext,
  ): Promise<void> {
    const { path } = await sourceOf(volume);
    await this.#adm.disallow(context, tid, door.initiator);
    await this.#endSessions(tid, iqn, context);
    await this.#adm.setLun(context, tid, door.lun, { online: "No" });
    await this.#adm.setLun(context, tid, door.lun, { path });
    await this.#adm.allow(context, tid, door.initiator);
  }

  async restore(holds: readonly Hold[], context: OpContext): Promise<readonly NotRestored[]> {
    const { known, failed } = readHolds(holds);
    if (await this.#shared.daemon.isUp(context))
      await this.#withdrawUnknown(new Set(known.map(({ door }) => door.iqn)), context);
    const unmade = await restoreEach(known, (hold) => this.export(hold, context));
    for (const { hold } of unmade) this.#failed.add(hold.door.iqn);
    return [...failed, ...unmade];
  }

  /** Own targets that no record names. */
  async #withdrawUnknown(known: ReadonlySet<string>, context: OpContext): Promise<void> {
    for (const target of await this.#adm.targets(context))
      if (ownerInTarget(target.iqn) === this.#names.owner && !known.has(target.iqn))
        await this.#withdraw(target, context);
  }

  watch(onLost: () => void): () => void {
    const watched = {
      everyMs: LOOK_MS,
      looks: 1,
      isLost: async () => this.#exports.size > 0 && (await this.#isLost()),
      hasFailed: () => this.#failed.size > 0,
    };
    return watchExports(watched, onLost);
  }

  async #isLost(): Promise<boolean> {
    const { daemon, isOwn, accounts } = this.#shared;
    if (this.#isDamaged) {
      this.#isDamaged = false;
      return true;
    }
    // An own one has nobody else who changes it, so it is enough that it lives.
    if (isOwn) {
      if ((await daemon.pids()).length > 0) return false;
    } else {
      const context = { ...this.#context, signal: AbortSignal.timeout(LOOK_MS) };
      const there = new Set((await this.#adm.targets(context)).map(({ iqn }) => iqn));
      if ([...this.#exports.keys()].every((iqn) => there.has(iqn))) return false;
    }
    accounts.forget();
    return true;
  }

  async sessions(
    volumes: readonly VolumeRecord[],
    context: OpContext,
  ): Promise<readonly Session[]> {
    const ids = new Set(volumes.map(({ id }) => id));
    if (this.#exports.size === 0 || !(await this.#shared.daemon.isUp(context))) return [];
    return (await this.#adm.targets(context)).flatMap(({ iqn, sessions }) => {
      const hold = this.#exports.get(iqn);
      if (hold === undefined || !ids.has(hold.volume.id)) return [];
      return sessions.map(({ initiator, connections: [first] }) => ({
        volumeID: hold.volume.id,
        instanceID: hold.attachment.instanceID.id,
        peer: initiator,
        ...(first !== undefined && { address: first.address }),
        state: first === undefined ? "without a connection" : "logged in",
      }));
    });
  }

  async abilities(context: OpContext): Promise<readonly Ability[]> {
    const installed = await this.#shared.daemon.isUp(context).then(
      (isUp) => ({ available: true, detail: isUp ? "tgtd runs" : "started on demand" }),
      (error: unknown) => ({ available: false, detail: String((error as Error).message) }),
    );
    return [
      { name: "tgtd", ...installed },
      portalAbility(() => listeningPortals(this.#config.portals)),
      chapAbility(this.#config.chap.mode),
    ];
  }

  async close(): Promise<void> {
    const context = { ...this.#context, signal: AbortSignal.timeout(CUT_MS) };
    await this.#shared.daemon.endIfIdle(context);
    this.#shared.release(this.#names.owner);
  }
}

/** Whether a target is as it must be, but for passwords, which cannot be seen. */
function isComplete(
  target: TgtTarget,
  { door, volume }: IscsiHold,
  credentials: Credentials | undefined,
): boolean {
  const lun = target.luns.find((one) => one.lun === door.lun);
  return (
    target.state === "ready" &&
    lun?.isOnline === true &&
    lun.serial === door.serial &&
    "path" in volume.source &&
    lun.path === volume.source.path &&
    target.acl.length === 1 &&
    target.acl[0] === door.initiator &&
    Accounts.areBound(target, credentials)
  );
}

/**
 * A free number for a target. Numbers are told to initiators in a further name of the device, which holds 28 bits, so
 * those of several daemons should differ.
 */
function numberFor(iqn: string, targets: readonly TgtTarget[]): number {
  const taken = new Set(targets.map(({ tid }) => tid));
  let number = createHash("sha256").update(iqn).digest().readUInt32BE() >>> 4;
  while (number === 0 || taken.has(number)) number = (number + 1) % 2 ** 28;
  return number;
}

function notCut(iqn: string, why: string): StorageError {
  return new StorageError(
    "failed-precondition",
    `whether the holder behind ${iqn} is cut off cannot be proven: ${why}; try again, or end tgtd with kill -9, which ends all its exports until they are made again`,
    { iqn },
  );
}

export const iscsiTgt = defineExporter({
  name: NAME,
  config: TgtConfig,
  open: async (config, context) => {
    const owner = ownerOf(await serverID(context), context.service);
    const names = { prefix: config.iqnPrefix, owner, service: context.service };
    const shared = await sharedDaemon(config, owner, context);
    return new TgtExporter(config, names, shared, context);
  },
});
