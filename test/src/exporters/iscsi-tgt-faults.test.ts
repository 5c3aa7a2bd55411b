/** The fault run over iscsi-tgt, with a tgtd for each case. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe } from "node:test";
import { makeScratch } from "../faults/folders.js";
import { exporterFaults, limitOf } from "./exporter-faults.js";
import type { ExporterWorld } from "./exporter-faults.js";
import { freePort, tgtMissing } from "./iscsi-client.js";

const scratch = makeScratch("tgt-faults");

function daemons(folder: string): number[] {
  return readdirSync("/proc").flatMap((pid) => {
    try {
      if (readFileSync(`/proc/${pid}/comm`, "utf8") !== "tgtd\n") return [];
      return readFileSync(`/proc/${pid}/environ`, "utf8").includes(folder) ? [Number(pid)] : [];
    } catch {
      return [];
    }
  });
}

function dump(folder: string): string {
  if (daemons(folder).length === 0) return "";
  const [name = ""] = readdirSync(join(folder, "lib/tgt")).filter((one) => one.endsWith(".0"));
  const socket = join(folder, "lib/tgt", name.slice(0, -2));
  const args = ["--lld", "iscsi", "--op", "show", "--mode", "target"];
  return execFileSync("tgtadm", args, {
    env: { ...process.env, TGT_IPC_SOCKET: socket },
    encoding: "utf8",
  });
}

/** By its own reading of the text, not the exporter's. */
function exported(folder: string, chap: "one-way" | "mutual"): string[] {
  return dump(folder)
    .split(/^(?=Target )/m)
    .flatMap((text) => {
      const iqn = /^Target \d+: (\S+)/.exec(text)?.[1];
      const rules = text.split("ACL information:\n")[1]?.trim() ?? "";
      if (iqn === undefined || rules === "") return [];
      const accounts = /Account information:\n((?: {8}\S.*\n)*)/.exec(text)?.[1] ?? "";
      const users = accounts.trim().split(/\n +/).toSorted();
      // Whoever gets in without a password has another name here, which no record has.
      const isOpen = users.join() !== (chap === "mutual" ? "host,storage (outgoing)" : "host");
      return rules.split(/\s+/).map((rule) => `${iqn} ${rule}${isOpen ? " without password" : ""}`);
    });
}

/** Each so manieth case is run as a rule. */
const USUAL = 3;
const HOST = { initiator: "*", user: "host", secret: "initiator-secret" };
const BOTH = { ...HOST, targetUser: "storage", targetSecret: "target-secret-1" };

const worldWith = (chap: "one-way" | "mutual"): ExporterWorld => ({
  name: `CHAP ${chap}`,
  exporter: "iscsi-tgt",
  scratch: scratch.path,
  config: async (folder) => {
    const secretsFile = join(folder, "chap.yml");
    writeFileSync(secretsFile, JSON.stringify([BOTH]), { mode: 0o600 });
    const portals = [`127.0.0.1:${await freePort()}`];
    return { portals, chap: { mode: chap, secretsFile } };
  },
  exported: async (folder) => exported(folder, chap),
  left: async (folder) => daemons(folder).map((pid) => `tgtd ${pid}: ${dump(folder)}`),
  lose: async (folder) => {
    for (const pid of daemons(folder)) process.kill(pid, "SIGKILL");
    while (daemons(folder).length > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  },
});

describe("faults in iscsi-tgt", { skip: tgtMissing(), timeout: limitOf(USUAL) }, () => {
  after(() => {
    // Of cases that failed.
    for (const pid of daemons(scratch.path)) process.kill(pid, "SIGKILL");
    return scratch.remove();
  });
  exporterFaults([() => worldWith("one-way"), () => worldWith("mutual")], USUAL, 80);
});
