/** The fault run over iscsi-lio, in a machine of its own. All cases share the kernel's one target. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe } from "node:test";
import { exporterFaults, limitOf } from "../exporters/exporter-faults.js";
import type { ExporterWorld } from "../exporters/exporter-faults.js";
import { insideOneMachine } from "./inside.js";
import { sh } from "./shell.js";

const TARGETS = "/sys/kernel/config/target";
const SAVED = "/etc/rtslib-fb-target/saveconfig.json";

function folders(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name);
  } catch {
    return [];
  }
}

/** By its own look at the kernel, not the exporter's: who has a LUN behind an entry, in a group that answers. */
function exported(): string[] {
  return folders(`${TARGETS}/iscsi`)
    .filter((name) => name.startsWith("iqn."))
    .flatMap((iqn) => {
      const group = `${TARGETS}/iscsi/${iqn}/tpgt_1`;
      return folders(`${group}/acls`).flatMap((initiator) => {
        const luns = folders(`${group}/acls/${initiator}`).filter((name) =>
          name.startsWith("lun_"),
        );
        if (luns.every((lun) => sh(`find ${group}/acls/${initiator}/${lun} -type l`) === ""))
          return [];
        if (sh(`cat ${group}/enable`) !== "1") return [];
        const isOpen =
          sh(`cat ${group}/attrib/authentication ${group}/acls/${initiator}/auth/userid`) !==
          "1\nhost";
        return [`${iqn} ${initiator}${isOpen ? " without password" : ""}`];
      });
    });
}

/** Each so manieth case is run as a rule. */
const USUAL = 9;
const scratch = { path: "" };

const worldWith = (target: "volume" | "service"): ExporterWorld => ({
  name: `a target for each ${target}`,
  exporter: "iscsi-lio",
  scratch: scratch.path,
  config: async (folder) => {
    const secretsFile = join(folder, "chap.yml");
    writeFileSync(secretsFile, "- {initiator: '*', user: host, secret: initiator-secret}", {
      mode: 0o600,
    });
    return { portals: ["127.0.0.1:3260"], target, chap: { mode: "one-way", secretsFile } };
  },
  exported: async () => exported(),
  left: async () => [
    ...folders(`${TARGETS}/iscsi`).filter((name) => name.startsWith("iqn.")),
    ...folders(`${TARGETS}/core`).filter((name) => /^(?:fileio|iblock)_/.test(name)),
    ...(sh(`cat ${SAVED}`).includes("libstorage") ? [SAVED] : []),
  ],
  lose: async () => void execFileSync("targetcli", ["clearconfig", "confirm=true"]),
});

insideOneMachine(import.meta.url, { memoryMiB: 1536, limitMs: limitOf(USUAL) }, () => {
  describe("faults in iscsi-lio", () => {
    scratch.path = mkdtempSync("/tmp/lio-faults-");
    sh("mkdir -p /run/dbus && dbus-daemon --system --fork");
    exporterFaults([() => worldWith("volume"), () => worldWith("service")], USUAL, 50);
  });
});
