/** The calls that are cut off, each with what was done before and what takes all away again. */
import { blockCap, cap, GIB } from "./world.js";
import type { Message } from "./csi-client.js";

/** What the calls of one host so far have made. */
export interface FaultContext {
  readonly isBlock: boolean;
  readonly nodeId: string;
  readonly staging: string;
  readonly target: string;
  /** Ids by name, of volumes, snapshots and groups. */
  readonly ids: Map<string, string>;
}

export type Step = (context: FaultContext) => readonly [name: string, request: object];

export interface FaultCase {
  readonly name: string;
  readonly before: readonly Step[];
  readonly call: Step;
  /** How many mounts there are after it. */
  readonly mounts: number;
  readonly end: readonly Step[];
  /** At how many points there is something to fail, at least. */
  readonly points: number;
  /** Only for services whose volumes are devices, or only for folders. */
  readonly only?: "block" | "folders";
  /** Changes nothing on this host or the server that a kill could leave half done. */
  readonly isLook?: true;
  /** What is done by who does not try again, but takes away. */
  readonly giveUp?: readonly Step[];
}

const idOf = ({ ids }: FaultContext, name: string): string => ids.get(name) ?? `no-${name}`;
/** One whose file system can grow on any machine. */
const capOf = ({ isBlock }: FaultContext): Message =>
  cap("SINGLE_NODE_WRITER", isBlock ? { fsType: "btrfs" } : {});

const create =
  (name: string, more: (context: FaultContext) => object = () => ({})): Step =>
  (context) => [
    "CreateVolume",
    {
      name,
      volumeCapabilities: [capOf(context)],
      capacityRange: { requiredBytes: GIB },
      ...more(context),
    },
  ];
const remove =
  (name: string): Step =>
  (context) => ["DeleteVolume", { volumeId: idOf(context, name) }];
const admit: Step = (context) => [
  "ControllerPublishVolume",
  { volumeId: idOf(context, "a"), nodeId: context.nodeId, volumeCapability: capOf(context) },
];
const dismiss: Step = (context) => [
  "ControllerUnpublishVolume",
  { volumeId: idOf(context, "a"), nodeId: context.nodeId },
];
const stage: Step = (context) => [
  "NodeStageVolume",
  {
    volumeId: idOf(context, "a"),
    stagingTargetPath: context.staging,
    volumeCapability: capOf(context),
  },
];
const unstage: Step = (context) => [
  "NodeUnstageVolume",
  { volumeId: idOf(context, "a"), stagingTargetPath: context.staging },
];
const publish: Step = (context) => [
  "NodePublishVolume",
  {
    volumeId: idOf(context, "a"),
    stagingTargetPath: context.staging,
    targetPath: context.target,
    volumeCapability: capOf(context),
  },
];
const unpublish: Step = (context) => [
  "NodeUnpublishVolume",
  { volumeId: idOf(context, "a"), targetPath: context.target },
];
const raw =
  (step: Step): Step =>
  (context) => {
    const [name, request] = step(context);
    return [name, { ...request, volumeCapability: blockCap() }];
  };
const expand: Step = (context) => [
  "ControllerExpandVolume",
  { volumeId: idOf(context, "a"), capacityRange: { requiredBytes: 2 * GIB } },
];
const nodeExpand: Step = (context) => [
  "NodeExpandVolume",
  {
    volumeId: idOf(context, "a"),
    volumePath: context.staging,
    capacityRange: { requiredBytes: 2 * GIB },
  },
];
const stats: Step = (context) => [
  "NodeGetVolumeStats",
  { volumeId: idOf(context, "a"), volumePath: context.staging },
];
const snapshot: Step = (context) => [
  "CreateSnapshot",
  { name: "s", sourceVolumeId: idOf(context, "a") },
];
const unsnapshot: Step = (context) => ["DeleteSnapshot", { snapshotId: idOf(context, "s") }];
const group =
  (parameters: object = {}): Step =>
  (context) => [
    "CreateVolumeGroupSnapshot",
    {
      name: "g",
      sourceVolumeIds: ["a", "b"].map((name) => context.ids.get(name)).filter(Boolean),
      parameters,
    },
  ];
const ungroup: Step = (context) => [
  "DeleteVolumeGroupSnapshot",
  { groupSnapshotId: idOf(context, "g"), snapshotIds: [] },
];
const mutable = { mutableParameters: { "option.owner": "me" } };
const modify: Step = (context) => [
  "ControllerModifyVolume",
  { volumeId: idOf(context, "a"), ...mutable },
];
const staged = [create("a"), admit, stage];
const unstaged = [unstage, dismiss, remove("a")];
const rawAdmitted = [create("a", () => ({ volumeCapabilities: [blockCap()] })), raw(admit)];
const rawStaged = [...rawAdmitted, raw(stage)];
const clone = create("c", (context) => ({
  volumeContentSource: { volume: { volumeId: idOf(context, "a") } },
  capacityRange: { requiredBytes: 2 * GIB },
}));
const restore = create("c", (context) => ({
  volumeContentSource: { snapshot: { snapshotId: idOf(context, "s") } },
}));

const CONTROLLER: readonly FaultCase[] = [
  {
    name: "CreateVolume",
    before: [],
    call: create("a"),
    mounts: 0,
    end: [remove("a")],
    points: 2,
  },
  {
    name: "CreateVolume with mutable parameters",
    before: [],
    call: create("a", () => mutable),
    mounts: 0,
    // Made as it was asked for: it can be asked for once more.
    end: [create("a", () => mutable), remove("a")],
    points: 2,
  },
  {
    name: "ControllerModifyVolume",
    before: [create("a")],
    call: modify,
    mounts: 0,
    end: [remove("a")],
    points: 2,
  },
  {
    name: "CreateVolume, a larger clone",
    before: [create("a")],
    call: clone,
    mounts: 0,
    end: [remove("c"), remove("a")],
    points: 4,
  },
  {
    name: "CreateVolume from a snapshot",
    before: [create("a"), snapshot],
    call: restore,
    mounts: 0,
    end: [remove("c"), unsnapshot, remove("a")],
    points: 4,
  },
  {
    name: "DeleteVolume",
    before: [create("a")],
    call: remove("a"),
    mounts: 0,
    end: [],
    points: 2,
  },
  {
    name: "CreateSnapshot",
    before: [create("a")],
    call: snapshot,
    mounts: 0,
    end: [unsnapshot, remove("a")],
    points: 4,
  },
  {
    name: "DeleteSnapshot",
    before: [create("a"), snapshot],
    call: unsnapshot,
    mounts: 0,
    end: [remove("a")],
    points: 2,
  },
  {
    name: "CreateVolumeGroupSnapshot",
    before: [create("a"), create("b")],
    call: group(),
    mounts: 0,
    end: [ungroup, remove("b"), remove("a")],
    points: 6,
  },
  {
    name: "DeleteVolumeGroupSnapshot",
    before: [create("a"), create("b"), group()],
    call: ungroup,
    mounts: 0,
    end: [remove("b"), remove("a")],
    points: 4,
  },
  {
    name: "ControllerPublishVolume",
    before: [create("a")],
    call: admit,
    mounts: 0,
    end: [dismiss, remove("a")],
    points: 2,
    giveUp: [dismiss, remove("a")],
  },
  {
    name: "ControllerUnpublishVolume",
    before: [create("a"), admit],
    call: dismiss,
    mounts: 0,
    end: [remove("a")],
    points: 2,
  },
  {
    name: "ControllerExpandVolume",
    before: [create("a")],
    call: expand,
    mounts: 0,
    end: [remove("a")],
    points: 2,
  },
  {
    name: "ListVolumes",
    before: [create("a")],
    call: () => ["ListVolumes", {}],
    mounts: 0,
    end: [remove("a")],
    points: 2,
    isLook: true,
  },
];

const NODE: readonly FaultCase[] = [
  {
    name: "NodeStageVolume",
    before: [create("a"), admit],
    call: stage,
    mounts: 1,
    end: unstaged,
    points: 4,
    giveUp: unstaged,
  },
  {
    name: "NodePublishVolume",
    before: staged,
    call: publish,
    mounts: 2,
    end: [unpublish, ...unstaged],
    points: 2,
    giveUp: [unpublish, ...unstaged],
  },
  {
    name: "NodePublishVolume of a device",
    before: rawStaged,
    call: raw(publish),
    // Of the device itself, on the file that the target is.
    mounts: 1,
    end: [unpublish, ...unstaged],
    points: 2,
    only: "block",
    giveUp: [unpublish, ...unstaged],
  },
  {
    name: "NodeStageVolume of a device",
    before: rawAdmitted,
    call: raw(stage),
    mounts: 0,
    end: unstaged,
    points: 2,
    only: "block",
    giveUp: unstaged,
  },
  {
    name: "NodeUnpublishVolume of a device",
    before: [...rawStaged, raw(publish)],
    call: unpublish,
    mounts: 0,
    end: unstaged,
    points: 2,
    only: "block",
  },
  {
    name: "NodeUnstageVolume of a device",
    before: rawStaged,
    call: unstage,
    mounts: 0,
    end: [dismiss, remove("a")],
    points: 0,
    only: "block",
  },
  {
    name: "NodeExpandVolume of a device",
    before: [...rawStaged, raw(publish), expand],
    call: nodeExpand,
    mounts: 1,
    end: [unpublish, ...unstaged],
    points: 2,
    only: "block",
  },
  {
    name: "NodeUnpublishVolume",
    before: [...staged, publish],
    call: unpublish,
    mounts: 1,
    end: unstaged,
    points: 2,
  },
  {
    name: "NodeUnstageVolume",
    before: staged,
    call: unstage,
    mounts: 0,
    end: [dismiss, remove("a")],
    points: 2,
  },
  {
    name: "NodeExpandVolume",
    before: [...staged, expand],
    call: nodeExpand,
    mounts: 1,
    end: unstaged,
    points: 2,
    only: "block",
  },
  {
    name: "CreateVolumeGroupSnapshot with a freeze",
    before: staged,
    call: group({ freeze: "true" }),
    mounts: 1,
    end: [ungroup, ...unstaged],
    points: 6,
    only: "block",
  },
  {
    name: "NodeGetVolumeStats",
    before: staged,
    call: stats,
    mounts: 1,
    end: unstaged,
    points: 0,
    isLook: true,
  },
];

export function faultCases({ isBlock }: Pick<FaultContext, "isBlock">): readonly FaultCase[] {
  // What the controller does is the same for all: it is the server's drivers that differ.
  return [...(isBlock ? [] : CONTROLLER), ...NODE].filter(
    ({ only }) => only === undefined || (only === "block") === isBlock,
  );
}
