/** The name of this host's iSCSI initiator. Targets let hosts in by it, so no two hosts may have the same. */
import { readFile } from "node:fs/promises";
import { StorageError } from "@libstorage/model";

/** @see open-iscsi's README, "initiatorname.iscsi" */
export const INITIATOR_FILE = "/etc/iscsi/initiatorname.iscsi";

/** In lower case; undefined when this host has none. */
export async function initiatorName(): Promise<string | undefined> {
  const text = await readFile(INITIATOR_FILE, "utf8").catch(() => "");
  return /^InitiatorName=(\S+)/m.exec(text)?.[1]?.toLowerCase();
}

/** @throws {StorageError} `failed-precondition` */
export async function readInitiatorName(): Promise<string> {
  const name = await initiatorName();
  if (name !== undefined && /^(?:iqn\.\d{4}-\d{2}\.|eui\.|naa\.)[\w.:-]+$/.test(name)) return name;
  throw new StorageError(
    "failed-precondition",
    name === undefined
      ? `this host has no iSCSI initiator name in ${INITIATOR_FILE}; install open-iscsi, or write one: echo "InitiatorName=$(iscsi-iname)" > ${INITIATOR_FILE}, and restart iscsid`
      : `"${name}" in ${INITIATOR_FILE} is no iSCSI initiator name; write one: echo "InitiatorName=$(iscsi-iname)" > ${INITIATOR_FILE}, and restart iscsid`,
    { file: INITIATOR_FILE },
  );
}
