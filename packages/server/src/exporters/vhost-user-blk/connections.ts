/** Who is connected to a Unix socket of a process. @see proc(5), net/unix */
import { readFileSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";

const CONNECTED = "03";

export interface Connections {
  /** How many have come through the socket. */
  readonly known: number;
  /** Sockets of the process that are in neither table: their other ends are in another network namespace. */
  readonly foreign: number;
}

interface Line {
  readonly state: string;
  readonly inode: string;
  readonly path: string;
}

function linesOf(table: string): Line[] {
  return table
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((words) => words.length >= 7)
    .map(([, , , , , state = "", inode = "", ...rest]) => ({
      state,
      inode,
      path: rest.join(" "),
    }));
}

/**
 * A socket that was accepted has the path of the one that listens, and stands in the table of whoever connected.
 * @param tables of the process, and of those who may connect
 * @param owned the inodes of the process's sockets
 */
export function connectionsIn(
  tables: readonly string[],
  owned: ReadonlySet<string>,
  path: string,
): Connections {
  const lines = new Map(tables.flatMap(linesOf).map((line) => [line.inode, line]));
  const own = [...owned].map((inode) => lines.get(inode));
  return {
    known: own.filter((line) => line?.state === CONNECTED && line.path === path).length,
    foreign: own.filter((line) => line === undefined).length,
  };
}

/**
 * Connections of a process without a network of its own, whose sockets are all of this kind.
 * @param others processes that may be connected to it too, each with a network of its own
 */
export function connectionsOf(pid: number, path: string, others: readonly number[]): Connections {
  const folder = `/proc/${pid}/fd`;
  const links = readdirSync(folder).flatMap((name) => {
    try {
      return [readlinkSync(join(folder, name))];
    } catch {
      // Closed meanwhile.
      return [];
    }
  });
  const owned = links.flatMap((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1] ?? []);
  const tables = ["self", pid, ...others].flatMap((who) => {
    try {
      return [readFileSync(`/proc/${who}/net/unix`, "utf8")];
    } catch {
      // Ended meanwhile.
      return [];
    }
  });
  return connectionsIn(tables, new Set(owned), path);
}
