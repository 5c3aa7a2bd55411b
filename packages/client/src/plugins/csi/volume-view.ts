/** Volumes and snapshots of the service as the interface's messages. */
import type * as model from "@libstorage/model";
import { brokenOf } from "./backend.js";
import { publishedNodes } from "./holders.js";
import type { Snapshot, TextMap, Timestamp, Volume, VolumeStatus } from "./messages.js";
import { bytesOf } from "./sizes.js";
import { topologyOf } from "./topology.js";
import { factsOf, snapshotFactsOf, sourceOf } from "./volume-facts.js";

export function volumeOf(volume: model.Volume, topology: TextMap): Volume {
  const source = sourceOf(factsOf(volume)?.source ?? "");
  return {
    volumeId: volume.id,
    capacityBytes: bytesOf(volume.size),
    ...(source !== undefined && { contentSource: source }),
    accessibleTopology: topologyOf(topology),
  };
}

export function statusOfVolume(volume: model.Volume): VolumeStatus {
  const broken = brokenOf(volume);
  return {
    publishedNodeIds: publishedNodes(volume),
    volumeCondition:
      broken === undefined
        ? { abnormal: false, message: "the service can use the volume" }
        : { abnormal: true, message: broken },
  };
}

export function timestampOf(seconds: number): Timestamp {
  return { seconds, nanos: 0 };
}

export function snapshotOf(snapshot: model.Snapshot): Snapshot {
  const group = snapshotFactsOf(snapshot)?.group ?? "";
  return {
    snapshotId: snapshot.id,
    sourceVolumeId: snapshot.volumeID ?? "",
    sizeBytes: bytesOf(snapshot.volumeSize),
    creationTime: timestampOf(snapshot.startTime ?? 0),
    readyToUse: snapshot.fields?.["broken"] === undefined,
    ...(group !== "" && { groupSnapshotId: group }),
  };
}
