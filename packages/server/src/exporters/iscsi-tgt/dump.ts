/** What `tgtadm --op show` prints. Its indentation, four blanks a level, is its structure. */

export interface TgtTarget {
  readonly tid: number;
  readonly iqn: string;
  /** `ready` or `offline`. */
  readonly state: string;
  readonly sessions: readonly TgtSession[];
  readonly luns: readonly TgtLun[];
  readonly accounts: readonly { readonly user: string; readonly isOutgoing: boolean }[];
  /** Addresses, networks, `ALL`, and names of initiators. Any of them lets in. */
  readonly acl: readonly string[];
}

export interface TgtSession {
  readonly sid: number;
  readonly initiator: string;
  readonly connections: readonly { readonly cid: number; readonly address: string }[];
}

export interface TgtLun {
  readonly lun: number;
  readonly serial: string;
  readonly path: string;
  readonly isOnline: boolean;
}

/** A line with the lines that stand deeper below it. */
interface Node {
  readonly text: string;
  readonly below: Node[];
}

function treeOf(output: string): readonly Node[] {
  const root: Node = { text: "", below: [] };
  const path: Node[] = [root];
  for (const line of output.split("\n")) {
    if (line.trim() === "") continue;
    const depth = Math.floor((line.length - line.trimStart().length) / 4);
    const node = { text: line.trim(), below: [] };
    path.length = Math.min(path.length, depth + 1);
    path.at(-1)?.below.push(node);
    path.push(node);
  }
  return root.below;
}

function valueOf(nodes: readonly Node[], key: string): string {
  const found = nodes.find(({ text }) => text.startsWith(`${key}:`));
  return found === undefined ? "" : found.text.slice(key.length + 1).trim();
}

function part(node: Node, title: string): readonly Node[] {
  return node.below.find(({ text }) => text === `${title}:`)?.below ?? [];
}

/** Reads `--op show --mode target`. */
export function parseTargets(output: string): readonly TgtTarget[] {
  return treeOf(output).flatMap((node) => {
    const [, tid, iqn = ""] = /^Target (\d+): (.*)$/.exec(node.text) ?? [];
    if (tid === undefined) return [];
    return [
      {
        tid: Number(tid),
        iqn,
        state: valueOf(part(node, "System information"), "State"),
        sessions: part(node, "I_T nexus information").map(sessionOf),
        luns: part(node, "LUN information").map(lunOf),
        accounts: part(node, "Account information").map(({ text }) => ({
          user: text.replace(/ \(outgoing\)$/, ""),
          isOutgoing: text.endsWith(" (outgoing)"),
        })),
        acl: part(node, "ACL information").map(({ text }) => text),
      },
    ];
  });
}

function numberIn(text: string): number {
  return Number(/(\d+)$/.exec(text)?.[1] ?? -1);
}

function sessionOf({ text, below }: Node): TgtSession {
  return {
    sid: numberIn(text),
    initiator: valueOf(below, "Initiator").replace(/ alias: .*$/, ""),
    connections: below
      .filter((node) => node.text.startsWith("Connection:"))
      .map((node) => ({ cid: numberIn(node.text), address: valueOf(node.below, "IP Address") })),
  };
}

function lunOf({ text, below }: Node): TgtLun {
  return {
    lun: numberIn(text),
    serial: valueOf(below, "SCSI SN"),
    path: valueOf(below, "Backing store path"),
    isOnline: valueOf(below, "Online") === "Yes",
  };
}

/** Reads `--op show --mode conn --tid N`: sessions with their connections. */
export function parseConnections(
  output: string,
): readonly { readonly sid: number; readonly cids: readonly number[] }[] {
  return treeOf(output)
    .filter(({ text }) => text.startsWith("Session:"))
    .map(({ text, below }) => ({
      sid: numberIn(text),
      cids: below
        .filter((node) => node.text.startsWith("Connection:"))
        .map((node) => numberIn(node.text)),
    }));
}

/** Reads `--op show --mode portal`. @returns texts such as `10.0.0.1:3260` */
export function parsePortals(output: string): readonly string[] {
  return [...output.matchAll(/^Portal: (.+),\d+$/gm)].map(([, portal = ""]) => portal);
}

/** Reads `--op show --mode account`. */
export function parseAccounts(output: string): readonly string[] {
  return treeOf(output)
    .filter(({ text }) => text === "Account list:")
    .flatMap(({ below }) => below.map(({ text }) => text));
}
