/** What the cases of the CSI suite work with: a plugin, ways to make things, and the proof that nothing is left. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { readMountTable } from "@libstorage/client/host";
import { Failed } from "./csi-client.js";
import type { Message, TestPlugin } from "./csi-client.js";

export const GIB = 1024 ** 3;

export type Status =
  | "INVALID_ARGUMENT"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "FAILED_PRECONDITION"
  | "ABORTED"
  | "OUT_OF_RANGE"
  | "RESOURCE_EXHAUSTED"
  | "UNIMPLEMENTED"
  | "UNAVAILABLE"
  | "CANCELLED"
  | "INTERNAL";

/** What a service can do, apart from what it says of itself. */
export interface Kind {
  readonly name: string;
  /** The driver, as in the ids of nodes. */
  readonly driver: string;
  readonly isBlock: boolean;
  /** Whether its own snapshots freeze file systems, so that nobody else may while they are made. */
  readonly freezesItself?: boolean;
  /** Whether it tells changed blocks of its snapshots. */
  readonly tellsBlocks?: boolean;
  /** Why volumes cannot be mounted here, or false. */
  readonly noMounts: string | false;
  /** Why only the server's own host can have them. */
  readonly noFarNodes?: string;
}

/** A capability as requests have it. */
export function cap(mode = "SINGLE_NODE_WRITER", more: object = {}): Message {
  return { mount: { ...more }, accessMode: { mode } };
}

export function blockCap(mode = "SINGLE_NODE_WRITER"): Message {
  return { block: {}, accessMode: { mode } };
}

let names = 0;

export function unique(name: string): string {
  names += 1;
  return `${name}-${process.pid}-${names}`;
}

type Undo = () => Promise<unknown>;

export class World {
  readonly kind: Kind;
  readonly plugin: TestPlugin;
  /** For staging folders and targets. */
  readonly folder: string;
  readonly #undo: Undo[] = [];
  #before: { readonly volumes: readonly string[]; readonly snapshots: readonly string[] } = {
    volumes: [],
    snapshots: [],
  };
  #paths = 0;

  constructor(kind: Kind, plugin: TestPlugin, folder: string) {
    this.kind = kind;
    this.plugin = plugin;
    this.folder = folder;
    mkdirSync(folder, { recursive: true });
  }

  call(name: string, request: object = {}): Promise<Message> {
    return this.plugin.call(name, request);
  }

  /** A call that must fail with this status, whose text says something. */
  async fails(status: Status, name: string, request: object = {}): Promise<string> {
    try {
      const reply = await this.plugin.call(name, request);
      assert.fail(`${name} succeeded with ${JSON.stringify(reply)}; expected ${status}`);
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      assert.equal(error.code, status, error.message);
      assert.ok(error.message.length > 20, `"${error.message}" says nothing`);
      return error.message;
    }
  }

  async begin(): Promise<void> {
    this.#before = { volumes: await this.volumeIDs(), snapshots: await this.snapshotIDs() };
  }

  /** Undoes what the case did, last first, and proves that nothing is left. */
  async end(): Promise<void> {
    for (const undo of this.#undo.splice(0).toReversed()) await undo();
    assert.deepEqual(await this.volumeIDs(), this.#before.volumes, "volumes left");
    assert.deepEqual(await this.snapshotIDs(), this.#before.snapshots, "snapshots left");
    assert.deepEqual(await this.mounts(), [], "mounts left");
    assert.deepEqual(this.records(), [], "records left");
    assert.deepEqual(readdirSync(this.folder), [], "paths left");
  }

  async volumeIDs(): Promise<string[]> {
    const { entries } = await this.call("ListVolumes");
    return entries.map((entry: Message) => entry.volume.volumeId as string);
  }

  async snapshotIDs(): Promise<string[]> {
    if (!(await this.controllerCan("LIST_SNAPSHOTS"))) return [];
    const { entries } = await this.call("ListSnapshots");
    return entries.map((entry: Message) => entry.snapshot.snapshotId as string);
  }

  async mounts(): Promise<string[]> {
    return (await readMountTable())
      .map(({ mountPoint }) => mountPoint)
      .filter((at) => at.startsWith(`${this.folder}/`));
  }

  /** What the node keeps of volumes. */
  records(): string[] {
    const folder = join(this.plugin.socket, "../var/lib/csi/csi.libstorage.org");
    return existsSync(folder) ? readdirSync(folder) : [];
  }

  /** As a start of the host leaves it: nothing is mounted, and the records are of an earlier one. */
  restartHost(volumeId: string, mounts: readonly string[]): void {
    for (const mount of mounts)
      assert.equal(spawnSync("umount", [mount]).status, 0, `${mount} is mounted`);
    const file = join(this.plugin.socket, "../var/lib/csi/csi.libstorage.org", `${volumeId}.json`);
    const text = readFileSync(file, "utf8");
    const before = text.replace(/"boot":"[^"]*"/, '"boot":"an-earlier-one"');
    assert.notEqual(before, text);
    writeFileSync(file, before);
  }

  async controllerCan(name: string): Promise<boolean> {
    const { capabilities } = await this.call("ControllerGetCapabilities");
    return capabilities.some((one: Message) => one.rpc.type === name);
  }

  async nodeCan(name: string): Promise<boolean> {
    const { capabilities } = await this.call("NodeGetCapabilities");
    return capabilities.some((one: Message) => one.rpc.type === name);
  }

  undo(step: Undo): void {
    this.#undo.push(step);
  }

  // ---- making things

  async create(request: object = {}): Promise<Message> {
    const { volume } = await this.call("CreateVolume", {
      name: unique("pvc"),
      volumeCapabilities: [this.cap()],
      capacityRange: { requiredBytes: GIB },
      ...request,
    });
    this.undo(() => this.call("DeleteVolume", { volumeId: volume.volumeId }));
    return volume;
  }

  /** One whose file system can grow on any machine. */
  growable(): Message {
    return cap("SINGLE_NODE_WRITER", this.kind.isBlock ? { fsType: "btrfs" } : {});
  }

  cap(mode = "SINGLE_NODE_WRITER", more: object = {}): Message {
    return cap(mode, more);
  }

  async snapshot(sourceVolumeId: string, name = unique("snap")): Promise<Message> {
    const { snapshot } = await this.call("CreateSnapshot", { name, sourceVolumeId });
    this.undo(() => this.call("DeleteSnapshot", { snapshotId: snapshot.snapshotId }));
    return snapshot;
  }

  async nodeID(): Promise<string> {
    return (await this.call("NodeGetInfo")).nodeId;
  }

  /** For cases with nodes that do not exist. @returns whether this one is skipped */
  skipsFarNodes(test: { readonly skip: (why: string) => void }): boolean {
    const { noFarNodes } = this.kind;
    if (noFarNodes !== undefined) test.skip(noFarNodes);
    return noFarNodes !== undefined;
  }

  /** Another node of the same driver, which need not exist. */
  otherNode(name: string): string {
    return `${this.kind.driver}:${name}`;
  }

  async publishTo(volumeId: string, nodeId: string, more: object = {}): Promise<Message> {
    const reply = await this.call("ControllerPublishVolume", {
      volumeId,
      nodeId,
      volumeCapability: this.cap(),
      ...more,
    });
    this.undo(() => this.call("ControllerUnpublishVolume", { volumeId, nodeId }));
    return reply;
  }

  /** A staging folder, as the orchestrator makes it. */
  stagingPath(): string {
    this.#paths += 1;
    const path = join(this.folder, `staging-${this.#paths}`);
    mkdirSync(path);
    this.undo(async () => rmdirSync(path));
    return path;
  }

  targetPath(): string {
    this.#paths += 1;
    return join(this.folder, `target-${this.#paths}`);
  }

  async stage(volumeId: string, more: object = {}): Promise<string> {
    const stagingTargetPath = this.stagingPath();
    await this.call("NodeStageVolume", {
      volumeId,
      stagingTargetPath,
      volumeCapability: this.cap(),
      ...more,
    });
    this.undo(() => this.call("NodeUnstageVolume", { volumeId, stagingTargetPath }));
    return stagingTargetPath;
  }

  async publish(volumeId: string, stagingTargetPath: string, more: object = {}): Promise<string> {
    const targetPath = this.targetPath();
    await this.call("NodePublishVolume", {
      volumeId,
      stagingTargetPath,
      targetPath,
      volumeCapability: this.cap(),
      ...more,
    });
    this.undo(() => this.call("NodeUnpublishVolume", { volumeId, targetPath }));
    return targetPath;
  }

  /** Who may only read needs somebody who has written; of a folder nothing is needed. */
  async format(volumeId: string): Promise<void> {
    if (!this.kind.isBlock) return;
    const nodeId = await this.nodeID();
    const volumeCapability = this.cap();
    await this.call("ControllerPublishVolume", { volumeId, nodeId, volumeCapability });
    const stagingTargetPath = this.stagingPath();
    await this.call("NodeStageVolume", { volumeId, stagingTargetPath, volumeCapability });
    await this.call("NodeUnstageVolume", { volumeId, stagingTargetPath });
    await this.call("ControllerUnpublishVolume", { volumeId, nodeId });
  }

  /** A volume that is staged on this node. */
  async staged(
    capability: Message = this.cap(),
    request: object = {},
  ): Promise<{ readonly volumeId: string; readonly staging: string }> {
    const { volumeId } = await this.create({ volumeCapabilities: [capability], ...request });
    if (/READER_ONLY/.test(capability.accessMode.mode)) await this.format(volumeId);
    await this.publishTo(volumeId, await this.nodeID(), { volumeCapability: capability });
    return { volumeId, staging: await this.stage(volumeId, { volumeCapability: capability }) };
  }
}
