/** The kernel's NFS server, as it shows itself in its own file system. @see nfsd(7) */
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { OpContext } from "../../core/driver.js";
import { canonical } from "./subnets.js";

const NFSD = "/proc/fs/nfsd";

export function hasNfsd(): boolean {
  return existsSync(join(NFSD, "threads"));
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** 0: it does not serve. */
export function nfsdThreads(): number {
  return Number(textOf(join(NFSD, "threads")).trim() || 0);
}

/** A host that uses NFS 4; earlier versions know none. */
export interface NfsClient {
  readonly number: string;
  readonly address: string;
  readonly name: string;
  readonly status: string;
}

/** A client's `info`: lines of YAML. The address has a port; one of IPv6 stands in brackets. */
export function parseClient(number: string, text: string): NfsClient | undefined {
  const value = (key: string): string =>
    new RegExp(`^${key}: "?(.*?)"?$`, "m").exec(text)?.[1] ?? "";
  const [, v6, v4] = /^(?:\[(.*)\]|([\d.]+))(?::\d+)?$/.exec(value("address")) ?? [];
  const address = canonical(v6 ?? v4 ?? "");
  if (address === undefined) return undefined;
  return { number, address, name: value("name"), status: value("status") };
}

export function nfsClients(): NfsClient[] {
  const folder = join(NFSD, "clients");
  if (!existsSync(folder)) return [];
  return readdirSync(folder).flatMap(
    (number) => parseClient(number, textOf(join(folder, number, "info"))) ?? [],
  );
}

/** How many files and locks a client has open, in all volumes. */
export function openStates(number: string): number {
  const text = textOf(join(NFSD, "clients", number, "states"));
  return text.split("\n").filter((line) => line.startsWith("- ")).length;
}

/**
 * Ends a client with all it has open; waits for its requests. It opens what it still may have by itself.
 * One that is gone already is fine.
 */
export async function expireClient(number: string, context: OpContext): Promise<void> {
  const path = join(NFSD, "clients", number, "ctl");
  try {
    await context.exec("tee", [path], context.signal, { input: "expire\n" });
  } catch (error) {
    if (existsSync(path)) throw error;
  }
}

/** Who has asked for which path since the kernel was told to forget: `PATH CLIENT(FLAGS)` a line. */
export function parseCache(text: string): { readonly path: string; readonly client: string }[] {
  return text.split("\n").flatMap((line) => {
    const match = /^([^#\s]\S*)\s+(\S+?)\(/.exec(line);
    if (match === null) return [];
    const [, path = "", client = ""] = match;
    return [{ path, client: canonical(client) ?? client }];
  });
}

export function exportsInUse(): { readonly path: string; readonly client: string }[] {
  return parseCache(textOf("/proc/net/rpc/nfsd.export/content"));
}
