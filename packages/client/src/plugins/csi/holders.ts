/** Who has a volume, and how: the nodes among the holders, with what the plugin noted of each. */
import { isSameInstance } from "@libstorage/model";
import type { InstanceID, Opts, Volume, VolumeAttachment } from "@libstorage/model";
import type { KnownMode } from "./access-modes.js";
import { isKnownMode } from "./access-modes.js";
import { formatNodeID } from "./node-id.js";
import { newHoldToken } from "../../host/hold-token.js";

export { tokenOf } from "../../host/hold-token.js";

const NODE = "holder.node";
const MODE = "holder.mode";
const ACCESS = "holder.access";
const READONLY = "holder.readonly";

/** How a node has a volume. */
export interface Hold {
  readonly nodeID: string;
  readonly mode: KnownMode;
  readonly access: "block" | "mount";
  readonly readonly: boolean;
}

/** For the options of an attach: the service keeps them with the attachment. */
export function holdOptions({ nodeID, mode, access, readonly }: Hold): Opts {
  return {
    [NODE]: nodeID,
    [MODE]: mode,
    [ACCESS]: access,
    [READONLY]: String(readonly),
    ...newHoldToken(),
  };
}

/** @returns undefined for an attachment that the plugin did not make */
export function holdOf({ fields = {} }: VolumeAttachment): Hold | undefined {
  const [nodeID, mode, access] = [fields[NODE], fields[MODE], fields[ACCESS]];
  if (nodeID === undefined || mode === undefined || !isKnownMode(mode as KnownMode))
    return undefined;
  return {
    nodeID,
    mode: mode as KnownMode,
    access: access === "block" ? "block" : "mount",
    readonly: fields[READONLY] === "true",
  };
}

export function attachmentOf(volume: Volume, node: InstanceID): VolumeAttachment | undefined {
  return volume.attachments?.find(
    ({ instanceID }) => instanceID !== null && isSameInstance(instanceID, node),
  );
}

/** A node's id; that of a host which came another way is made up from its instance ID. */
export function nodeIDOf(attachment: VolumeAttachment): string {
  const noted = holdOf(attachment)?.nodeID;
  if (noted !== undefined) return noted;
  return attachment.instanceID === null ? "" : formatNodeID(attachment.instanceID);
}

export function publishedNodes({ attachments = [] }: Volume): string[] {
  return attachments.map(nodeIDOf).filter((id) => id !== "");
}
