/**
 * The libStorage operations over the core in this process: what the REST front-end serves, and what a
 * program that embeds the server calls, without any socket.
 */
import { ROUTES } from "@libstorage/model";
import type { CallContext, Route, ServiceOperation, VolumeService } from "@libstorage/model";
import type { Storage } from "../../core/storage.js";
import { Locations, hypervisorOperations } from "../hypervisor/index.js";
import { checkBody } from "./check-body.js";
import { exportOperations } from "./exports.js";
import { imageOperations } from "./images.js";
import { Reads } from "./reads.js";
import { serviceOperations, taskOperations } from "./services.js";
import { snapshotOperations } from "./snapshots.js";
import { volumeChanges, volumeDetachments, volumeReads } from "./volumes.js";

/** @param locations where hypervisors may have files; nowhere when left out */
export function openVolumeService(
  storage: Storage,
  locations: Locations = new Locations([]),
): VolumeService {
  const reads = new Reads(storage);
  return checkingBodies({
    ...serviceOperations(reads),
    ...volumeReads(reads),
    ...volumeChanges(reads),
    ...volumeDetachments(reads),
    ...imageOperations(reads),
    ...snapshotOperations(reads),
    ...exportOperations(reads),
    ...hypervisorOperations(reads, locations),
    ...taskOperations(reads),
  });
}

type LooseCall = (params: object, body: unknown, context: CallContext) => Promise<unknown>;

/** Types end where a program does not use them, so that every body is checked, whoever calls. */
function checkingBodies(service: VolumeService): VolumeService {
  const checked = Object.entries(service).map(([operation, call]): [string, unknown] => {
    const { body: schema }: Route = ROUTES[operation as ServiceOperation];
    if (schema === undefined) return [operation, call];
    const loose = call as LooseCall;
    const checking: LooseCall = async (params, body, context) =>
      loose(params, checkBody(schema, body), context);
    return [operation, checking];
  });
  return Object.fromEntries(checked) as VolumeService;
}
