/** Which volumes of a service share a storage daemon: what follows from `daemonFor`. */
import { createHash } from "node:crypto";
import { NodeNames } from "./node-names.js";

/** Distinct for distinct texts, and short enough for the names of nodes and sockets. */
export function short(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

export interface Layout {
  /** The name of the folder of the daemon that has a volume. */
  folderOf(volumeID: string): string;
  /** How the volume's nodes are called in it. */
  namesOf(volumeID: string): NodeNames;
  /** The name of the socket of an export that has one of its own, in that folder. @param id the daemon's, of it */
  socketOf(id: string): string;
}

export const LAYOUTS = {
  volume: {
    folderOf: (volumeID) => short(volumeID),
    namesOf: () => NodeNames.alone,
    socketOf: (id) => `${id.slice(2, 10)}.sock`,
  },
  service: {
    folderOf: () => "service",
    namesOf: (volumeID) => NodeNames.among(short(volumeID)),
    // A socket takes the place of one that has its name.
    socketOf: (id) => `${id.slice(2)}.sock`,
  },
} as const satisfies Record<string, Layout>;

/** Folders of daemons, of whichever layout, and of one that was asked what it can do. */
export const DAEMON_FOLDER = /^(?:[\da-f]{16}|service|probe)$/;
