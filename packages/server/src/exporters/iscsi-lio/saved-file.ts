/**
 * The file from which the boot service of targetcli makes targets again before this server is up. An export is
 * in it from its end on, and is taken out before the holder is cut off: what was cut off never comes
 * back at a boot. Entries of others stay as they are.
 */
import { readFile, stat } from "node:fs/promises";
import { isIP } from "node:net";
import { dirname } from "node:path";
import type { OpContext } from "../../core/driver.js";
import { Locks } from "../../core/locks.js";
import type { Credentials } from "../iscsi/chap.js";
import type { IscsiHold } from "../iscsi/door.js";
import { ownerInBackstore, ownerInTarget } from "../iscsi/names.js";
import type { Portal } from "../iscsi/portals.js";
import { codeOf, exists } from "./kernel.js";

const PLACES = ["/etc/rtslib-fb-target/saveconfig.json", "/etc/target/saveconfig.json"];

/** One export as it is in the kernel. */
export interface SavedExport {
  readonly hold: IscsiHold;
  readonly backstoreName: string;
  readonly credentials: Credentials | undefined;
  readonly listening: readonly Portal[];
}

interface Named {
  readonly name?: unknown;
  readonly wwn?: unknown;
}

/** Services of one server, and their exports, share the file. */
const locks = new Locks();

export class SavedFile {
  readonly #path: string | undefined;
  readonly #owner: string;

  private constructor(path: string | undefined, owner: string) {
    this.#path = path;
    this.#owner = owner;
  }

  /** @param setting `auto`, `off`, or a path */
  static async open(setting: string, owner: string): Promise<SavedFile> {
    if (setting === "off") return new SavedFile(undefined, owner);
    if (setting !== "auto") return new SavedFile(setting, owner);
    for (const path of PLACES) if (await exists(dirname(path))) return new SavedFile(path, owner);
    return new SavedFile(undefined, owner);
  }

  get path(): string | undefined {
    return this.#path;
  }

  /** Brings the file to hold exactly these exports of ours. One that cannot be read is left alone, and told. */
  async save(exports: () => readonly SavedExport[], { files, log }: OpContext): Promise<void> {
    const path = this.#path;
    if (path === undefined) return;
    await locks.run(path, async () => {
      const before = await readFile(path, "utf8").catch((error: unknown) => {
        if (codeOf(error) === "ENOENT") return "{}";
        throw error;
      });
      let saved: unknown;
      try {
        saved = JSON.parse(before);
      } catch {
        log.warn(
          { path },
          "the file that targetcli restores from is no JSON, so exports are not saved to it; make it anew with targetcli saveconfig",
        );
        return;
      }
      const after = `${JSON.stringify(merged(saved, this.#owner, exports()), undefined, 2)}\n`;
      if (after === before) return;
      const mode = await stat(path).then(
        (found) => found.mode & 0o700,
        () => 0o600,
      );
      await files.write(path, after, { mode });
    });
  }
}

/** The saved configuration with the exports of one owner replaced. Made for the tests to see. */
export function merged(saved: unknown, owner: string, exports: readonly SavedExport[]): object {
  const old = (typeof saved === "object" && saved !== null ? saved : {}) as Record<string, unknown>;
  const list = (key: string): readonly Named[] =>
    Array.isArray(old[key]) ? (old[key] as readonly Named[]) : [];
  const isForeign = (text: unknown, ownerIn: (text: string) => string | undefined): boolean =>
    typeof text !== "string" || ownerIn(text) !== owner;
  return {
    fabric_modules: [],
    ...old,
    storage_objects: [
      ...list("storage_objects").filter(({ name }) => isForeign(name, ownerInBackstore)),
      ...storageObjects(exports),
    ],
    targets: [
      ...list("targets").filter(({ wwn }) => isForeign(wwn, ownerInTarget)),
      ...targets(exports),
    ],
  };
}

function storageObjects(exports: readonly SavedExport[]): object[] {
  const byName = new Map(exports.map((one) => [one.backstoreName, one]));
  return [...byName].map(([name, { hold }]) => {
    const { source, sizeBytes } = hold.volume;
    const isFile = source.kind === "file";
    return {
      ...(isFile && { size: sizeBytes }),
      dev: "path" in source ? source.path : "",
      name,
      plugin: isFile ? "fileio" : "block",
      readonly: false,
      write_back: isFile,
      wwn: hold.door.serial,
    };
  });
}

function targets(exports: readonly SavedExport[]): object[] {
  const byTarget = grouped(exports, ({ hold }) => hold.door.iqn);
  return [...byTarget].map(([wwn, members]) => ({
    fabric: "iscsi",
    wwn,
    tpgs: [groupOf(members)],
  }));
}

function grouped<T>(
  all: readonly T[],
  keyOf: (one: T) => string,
): ReadonlyMap<string, readonly T[]> {
  const groups = new Map<string, T[]>();
  for (const one of all) {
    const key = keyOf(one);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [one]);
    else group.push(one);
  }
  return groups;
}

function groupOf(members: readonly SavedExport[]): object {
  const [first] = members;
  const isChecked = first?.hold.door.chap !== "none";
  const byInitiator = grouped(members, ({ hold }) => hold.door.initiator);
  return {
    tag: 1,
    enable: true,
    attributes: {
      authentication: isChecked ? 1 : 0,
      cache_dynamic_acls: 0,
      demo_mode_discovery: 0,
      demo_mode_write_protect: 1,
      generate_node_acls: 0,
    },
    parameters: {},
    luns: members.map(({ hold, backstoreName }) => ({
      index: hold.door.lun,
      storage_object: `/backstores/${hold.volume.source.kind === "file" ? "fileio" : "block"}/${backstoreName}`,
    })),
    node_acls: [...byInitiator].map(([node_wwn, mine]) => ({
      node_wwn,
      attributes: { authentication: isChecked ? 1 : 0 },
      ...passwords(mine[0]?.credentials),
      mapped_luns: mine.map(({ hold }) => ({
        index: hold.door.lun,
        tpg_lun: hold.door.lun,
        write_protect: false,
      })),
    })),
    portals: (first?.listening ?? []).map(({ address, port }) => ({
      ip_address: isIP(address) === 6 ? `[${address}]` : address,
      port,
      iser: first?.hold.door.iser === true,
      offload: false,
    })),
  };
}

function passwords(credentials: Credentials | undefined): object {
  if (credentials === undefined) return {};
  const { user, secret, targetUser, targetSecret } = credentials;
  return {
    chap_userid: user,
    chap_password: secret,
    ...(targetUser !== undefined && {
      chap_mutual_userid: targetUser,
      chap_mutual_password: targetSecret,
    }),
  };
}
