/** The records of all servers and services that this host has ever used. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { StorageError } from "@libstorage/model";
import { Connections } from "../host/connections.js";
import type { ConnectionRecord } from "../host/connections.js";
import { MountRecords } from "../host/mount-records.js";
import type { MountRecordFile } from "../host/mount-records.js";
import { mountFolderOf } from "../host/mount-records.js";
import { pathPart } from "../host/path-part.js";
import type { CheckOptions, KnownService, Leftover } from "./leftover.js";

async function foldersIn(folder: string): Promise<readonly string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  return entries.filter((one) => one.isDirectory()).map((one) => one.name);
}

async function servicesBelow(root: string): Promise<readonly KnownService[]> {
  const found: KnownService[] = [];
  for (const server of await foldersIn(root))
    for (const service of await foldersIn(join(root, server)))
      found.push({ server: decodeURIComponent(server), service: decodeURIComponent(service) });
  return found;
}

export async function knownServices({
  executors: { libFolder },
}: CheckOptions): Promise<readonly KnownService[]> {
  const all = [
    ...(await servicesBelow(join(libFolder, "mounts"))),
    ...(await servicesBelow(join(libFolder, "connections"))),
  ];
  return [...new Map(all.map((one) => [`${one.server} ${one.service}`, one])).values()];
}

export interface KnownMount extends KnownService {
  readonly record: MountRecordFile;
  readonly records: MountRecords;
}

export interface KnownConnection extends KnownService {
  readonly record: ConnectionRecord;
  readonly connections: Connections;
}

export interface Known {
  readonly mounts: readonly KnownMount[];
  readonly connections: readonly KnownConnection[];
  readonly broken: readonly Leftover[];
}

export function mountRecordsOf(
  { executors }: CheckOptions,
  { server, service }: KnownService,
): MountRecords {
  return new MountRecords(mountFolderOf(executors.libFolder, server, service));
}

/** Every record; what cannot be read is a leftover by itself. */
export async function readKnown(options: CheckOptions): Promise<Known> {
  const mounts: KnownMount[] = [];
  const connections: KnownConnection[] = [];
  const broken: Leftover[] = [];
  const tryAll = async <T>(files: readonly string[], read: (file: string) => Promise<T>) => {
    const found: NonNullable<T>[] = [];
    for (const file of files)
      try {
        const record = await read(file);
        if (record !== undefined && record !== null) found.push(record);
      } catch (error) {
        if (!(error instanceof StorageError)) throw error;
        broken.push({
          kind: "broken-record",
          what: file,
          about: error.message,
          instead: "read it, and follow what its error says",
        });
      }
    return found;
  };
  for (const one of await knownServices(options)) {
    const records = mountRecordsOf(options, one);
    for (const record of await tryAll(await records.files(), (file) => records.readFile(file)))
      mounts.push({ ...one, record, records });
    const own = new Connections(options.executors.libFolder, one.server, one.service);
    for (const record of await tryAll(await own.files(), (file) => own.readFile(file)))
      connections.push({ ...one, record, connections: own });
  }
  return { mounts, connections, broken };
}

/** Where a lock of a volume's records stands. */
export function lockFileOf(options: CheckOptions, service: KnownService, volumeID: string): string {
  return join(
    mountFolderOf(options.executors.libFolder, service.server, service.service),
    `${pathPart(volumeID)}.lock`,
  );
}
