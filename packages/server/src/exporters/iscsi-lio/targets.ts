/**
 * Targets, and who is let in. Made in an order in which nobody gets in half way: the portal group answers last,
 * the mapping of the volume to the initiator comes after its passwords. Unmade so that nothing of the holder
 * arrives once it is gone: the mapping first, then the session with the initiator's entry, then the LUN, whose
 * end waits for every command on it.
 */
import { realpath } from "node:fs/promises";
import { join } from "node:path";
import type { OpContext } from "../../core/driver.js";
import type { Credentials } from "../iscsi/chap.js";
import type { IscsiDoor, IscsiHold } from "../iscsi/door.js";
import { formatPortal } from "../iscsi/portals.js";
import type { Portal } from "../iscsi/portals.js";
import { StorageError } from "@libstorage/model";
import { UNSYNCED, attribute, codeOf, exists, folders, links, removeAndWait } from "./kernel.js";

/** The one portal group of a target. */
const GROUP = "tpgt_1";

export interface Admission {
  readonly door: IscsiDoor;
  /** For a door with CHAP. */
  readonly credentials: Credentials | undefined;
  readonly listening: readonly Portal[];
  /** The folder of the volume's backstore, and its name. */
  readonly backstore: string;
  readonly backstoreName: string;
}

export class Targets {
  readonly #fabric: string;

  constructor(root: string) {
    this.#fabric = join(root, "iscsi");
  }

  /** The names of all targets of this host. */
  async all(): Promise<readonly string[]> {
    return (await folders(this.#fabric)).filter((name) => /^(?:iqn|eui|naa)\./.test(name));
  }

  #group(iqn: string): string {
    return join(this.#fabric, iqn, GROUP);
  }

  #acl({ iqn, initiator }: IscsiDoor): string {
    return join(this.#group(iqn), "acls", initiator);
  }

  #lun({ iqn, lun }: IscsiDoor): string {
    return join(this.#group(iqn), "lun", `lun_${lun}`);
  }

  #mapping(door: IscsiDoor): string {
    return join(this.#acl(door), `lun_${door.lun}`);
  }

  /** Whether the holder can come in. */
  async isOpen(door: IscsiDoor): Promise<boolean> {
    const [mapped, enabled] = await Promise.all([
      links(this.#mapping(door)),
      attribute(join(this.#group(door.iqn), "enable")),
    ]);
    return mapped.length > 0 && enabled === "1";
  }

  async admit(admission: Admission, context: OpContext): Promise<void> {
    const { door, backstore, backstoreName } = admission;
    const { files } = context;
    const group = this.#group(door.iqn);
    const make = (path: string): Promise<void> => files.makeFolder(path, 0o755, UNSYNCED);
    await make(join(this.#fabric, door.iqn));
    await make(group);
    await this.#close(group, door, context);
    const lun = this.#lun(door);
    await make(lun);
    await this.#point(lun, backstore, backstoreName, context);
    await make(this.#acl(door));
    await this.#setPasswords(admission, context);
    for (const portal of admission.listening) await this.#listen(portal, door, context);
    await make(this.#mapping(door));
    await this.#point(this.#mapping(door), lun, `lun_${door.lun}`, context);
    if ((await attribute(join(group, "enable"))) !== "1")
      await files.writeAttribute(join(group, "enable"), "1");
  }

  /** Gives an object to another. There is one link for that, under any name: targetcli's boot service chooses its own. */
  async #point(from: string, to: string, name: string, context: OpContext): Promise<void> {
    for (const link of await links(from)) {
      const path = join(from, link);
      if ((await realpath(path)) === (await realpath(to))) return;
      await removeAndWait("unlink", path, path, context);
    }
    await context.files.link(to, join(from, name), UNSYNCED);
  }

  /** Nobody comes in but by an entry of its own, and never without a password where there are any. */
  async #close(group: string, { chap }: IscsiDoor, { files }: OpContext): Promise<void> {
    const wanted = {
      generate_node_acls: "0",
      cache_dynamic_acls: "0",
      demo_mode_discovery: "0",
      demo_mode_write_protect: "1",
      authentication: chap === "none" ? "0" : "1",
    };
    for (const [name, value] of Object.entries(wanted)) {
      const path = join(group, "attrib", name);
      if ((await attribute(path)) !== value) await files.writeAttribute(path, value);
    }
  }

  /**
   * Authentication is set in the entry too: an entry that inherits is checked only when the initiator offers
   * CHAP, so that a login without any gets in.
   */
  async #setPasswords({ door, credentials }: Admission, { files }: OpContext): Promise<void> {
    const acl = this.#acl(door);
    const own = join(acl, "attrib/authentication");
    if (await exists(own)) await files.writeAttribute(own, door.chap === "none" ? "0" : "1");
    const { user, secret, targetUser, targetSecret } = credentials ?? {};
    const wanted = {
      userid: user,
      password: secret,
      userid_mutual: targetUser,
      password_mutual: targetSecret,
    };
    for (const [name, value = UNSET] of Object.entries(wanted)) {
      const path = join(acl, "auth", name);
      const now = (await attribute(path)) ?? "";
      if (now !== value && !(now === "" && value === UNSET))
        await files.writeAttribute(path, value);
    }
  }

  async #listen(portal: Portal, { iqn, iser }: IscsiDoor, context: OpContext): Promise<void> {
    const path = join(this.#group(iqn), "np", formatPortal(portal));
    if (!(await exists(path)))
      await context.files.makeFolder(path, 0o755, UNSYNCED).catch(async (error: unknown) => {
        if (error instanceof StorageError) throw error;
        throw cannotListen(portal, iqn, error, await this.#whyNot(portal));
      });
    if (iser) await this.#addIser(path, portal, iqn, context);
  }

  /**
   * The kernel listens for RDMA beside TCP. A portal that was left without, or that another volume's holder has made
   * without, gets it; it is never taken away, since others of the target may use it.
   */
  async #addIser(path: string, portal: Portal, iqn: string, { files }: OpContext): Promise<void> {
    const iser = join(path, "iser");
    if ((await attribute(iser)) === "1") return;
    const why =
      "the kernel refuses it, and hosts would look for it in vain; it needs the module ib_isert (modprobe ib_isert) and an RDMA device that has this address (rdma link); look at dmesg, or set iser to false";
    await files.writeAttribute(iser, "1").catch((error: unknown) => {
      if (error instanceof StorageError) throw error;
      throw cannotListen(portal, iqn, error, why, " with iSER");
    });
    if ((await attribute(iser)) !== "1")
      throw cannotListen(portal, iqn, undefined, why, " with iSER");
  }

  /** Another target's wildcard takes the port of every address. The kernel says of a busy port that it is invalid. */
  async #whyNot({ port }: Portal): Promise<string> {
    for (const iqn of await this.all())
      for (const group of await folders(join(this.#fabric, iqn)))
        for (const other of await folders(join(this.#fabric, iqn, group, "np")))
          if (other === `0.0.0.0:${port}` || other === `[::]:${port}` || other === `[::0]:${port}`)
            return `the target ${iqn} listens on every address with that port; set "portals" to ${other.startsWith("0") ? other : `[::]:${port}`} to share it, or to another port`;
    return `most likely the port is in use (ss -ltnp 'sport = :${port}' shows by what); set "portals" to another port`;
  }

  /**
   * Ends one hold. When it answers, nothing of the holder arrives any more.
   * @throws {StorageError} `failed-precondition` when that cannot be proven
   */
  async expel({ door, volume, attachment }: IscsiHold, context: OpContext): Promise<void> {
    const { files } = context;
    const acl = this.#acl(door);
    const lun = this.#lun(door);
    const what = `${attachment.instanceID.id} (${door.initiator}) from volume ${volume.id}`;
    for (const link of await links(this.#mapping(door)))
      await files.unlink(join(this.#mapping(door), link), UNSYNCED);
    await files.removeFolder(this.#mapping(door), UNSYNCED);
    // It may have other volumes of the service; then the session lives on, for these.
    if (await isUnused(acl)) await removeAndWait("rmdir", acl, what, context);
    for (const link of await links(lun))
      await removeAndWait("unlink", join(lun, link), what, context);
    await files.removeFolder(lun, UNSYNCED);
    if ((await exists(this.#mapping(door))) || (await exists(lun)))
      throw new StorageError(
        "failed-precondition",
        `${what} was not cut off: the kernel keeps ${this.#mapping(door)}; look at dmesg and try again`,
        { volumeID: volume.id },
      );
    const group = this.#group(door.iqn);
    if ((await folders(join(group, "lun"))).length === 0) await this.remove(door.iqn, context);
  }

  /** Ends a target with all who are in it; one that is not there, or half there, is fine. */
  async remove(iqn: string, context: OpContext): Promise<void> {
    const { files } = context;
    const group = this.#group(iqn);
    if (await exists(join(group, "enable")))
      if ((await attribute(join(group, "enable"))) === "1")
        await files.writeAttribute(join(group, "enable"), "0");
    for (const name of await folders(join(group, "acls"))) {
      const acl = join(group, "acls", name);
      for (const mapping of await mappings(acl)) {
        for (const link of await links(mapping)) await files.unlink(join(mapping, link), UNSYNCED);
        await files.removeFolder(mapping, UNSYNCED);
      }
      await removeAndWait("rmdir", acl, `${name} from ${iqn}`, context);
    }
    for (const name of await folders(join(group, "lun"))) {
      const lun = join(group, "lun", name);
      for (const link of await links(lun))
        await removeAndWait("unlink", join(lun, link), iqn, context);
      await files.removeFolder(lun, UNSYNCED);
    }
    for (const name of await folders(join(group, "np")))
      await files.removeFolder(join(group, "np", name), UNSYNCED);
    await files.removeFolder(group, UNSYNCED);
    await files.removeFolder(join(this.#fabric, iqn), UNSYNCED);
  }

  /** What a target holds: who is mapped to which LUN. */
  async mapped(
    iqn: string,
  ): Promise<readonly { readonly initiator: string; readonly lun: number }[]> {
    const acls = join(this.#group(iqn), "acls");
    const found = await Promise.all(
      (await folders(acls)).map(async (initiator) =>
        (await mappings(join(acls, initiator))).map((path) => ({ initiator, lun: lunOf(path) })),
      ),
    );
    return found.flat();
  }

  /** The text of an initiator's sessions. */
  async sessionInfo(door: IscsiDoor): Promise<string | undefined> {
    return attribute(join(this.#acl(door), "info"));
  }
}

function cannotListen(
  portal: Portal,
  iqn: string,
  cause: unknown,
  why: string,
  how = "",
): StorageError {
  const code = cause === undefined ? "" : ` (${codeOf(cause)})`;
  return new StorageError(
    "failed-precondition",
    `the target cannot listen on ${formatPortal(portal)}${how}${code}: ${why}`,
    { portal: formatPortal(portal), iqn },
    { cause },
  );
}

/** The kernel's word for a value that is not set. */
const UNSET = "NULL";

async function mappings(acl: string): Promise<readonly string[]> {
  return (await folders(acl))
    .filter((name) => /^lun_\d+$/.test(name))
    .map((name) => join(acl, name));
}

function lunOf(path: string): number {
  return Number(path.slice(path.lastIndexOf("_") + 1));
}

async function isUnused(acl: string): Promise<boolean> {
  return (await mappings(acl)).length === 0;
}
