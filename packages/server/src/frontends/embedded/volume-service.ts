/**
 * The libStorage operations over the core in this process: what the REST front-end serves, and what a
 * program that embeds the server calls, without any socket.
 */
import type { VolumeService } from "@libstorage/model";
import type { Storage } from "../../core/storage.js";
import { Reads } from "./reads.js";
import { serviceOperations, taskOperations } from "./services.js";
import { snapshotOperations } from "./snapshots.js";
import { volumeChanges, volumeDetachments, volumeReads } from "./volumes.js";

export function openVolumeService(storage: Storage): VolumeService {
  const reads = new Reads(storage);
  return {
    ...serviceOperations(reads),
    ...volumeReads(reads),
    ...volumeChanges(reads),
    ...volumeDetachments(reads),
    ...snapshotOperations(reads),
    ...taskOperations(reads),
  };
}
