/** The kernel's tables of TCP connections. @see proc_net_tcp(5) */
import { readFileSync } from "node:fs";
import { canonical } from "./subnets.js";

const STATES: Readonly<Record<string, TcpState>> = { "01": "established", "0A": "listening" };

export type TcpState = "established" | "listening";

export interface Connection {
  readonly port: number;
  /** The other end's. */
  readonly peer: string;
  readonly state: TcpState;
}

/** Words of 32 bits in this machine's order, which is little-endian wherever this runs. */
function addressOf(hex: string): string {
  const bytes = (hex.match(/.{8}/g) ?? []).flatMap((word) =>
    (word.match(/../g) ?? []).map((byte) => Number.parseInt(byte, 16)).toReversed(),
  );
  if (bytes.length === 4) return bytes.join(".");
  const isMapped = bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 255;
  if (isMapped) return bytes.slice(12).join(".");
  const groups = Array.from({ length: 8 }, (_, index) =>
    (((bytes[2 * index] ?? 0) << 8) | (bytes[2 * index + 1] ?? 0)).toString(16),
  );
  return canonical(groups.join(":")) ?? "";
}

export function parseConnections(text: string): Connection[] {
  return text.split("\n").flatMap((line) => {
    const [, local = "", remote = "", code = ""] = line.trim().split(/\s+/);
    const state = STATES[code];
    if (state === undefined) return [];
    const port = Number.parseInt(local.split(":")[1] ?? "", 16);
    return [{ port, peer: addressOf(remote.split(":")[0] ?? ""), state }];
  });
}

export function tcpConnections(): Connection[] {
  return ["tcp", "tcp6"].flatMap((table) => {
    try {
      return parseConnections(readFileSync(`/proc/self/net/${table}`, "utf8"));
    } catch {
      return [];
    }
  });
}
