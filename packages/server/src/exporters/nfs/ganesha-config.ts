/** The configuration file of nfs-ganesha. A fault in it withdraws every export, so that nothing unchecked gets in. */
import type { NfsConfig } from "./config.js";
import type { Share } from "./share.js";

/** A session that is not renewed for so long has ended; after a restart clients have so long to come again. */
const LEASE_S = 20;
const GRACE_S = 30;

const SQUASH = { none: "No_Root_Squash", root: "Root_Squash", all: "All_Squash" } as const;

/** Two numbers of the share, for `Filesystem_Id`; larger ones than 63 bits are refused. */
function fileSystemID(fsid: string): string {
  const hex = fsid.replaceAll("-", "");
  return `${Number.parseInt(hex.slice(0, 8), 16)}.${Number.parseInt(hex.slice(-8), 16)}`;
}

function exportBlock(
  { path, number, fsid, clients }: Share,
  { squash, anonUid, anonGid, security }: NfsConfig,
): string {
  const access = clients.some(({ isReadOnly }) => isReadOnly) ? "RO" : "RW";
  const addresses = clients.map(({ address }) => address).join(", ");
  return `EXPORT {
  Export_Id = ${number}; Path = "${path}"; Pseudo = "${path}"; Filesystem_Id = ${fileSystemID(fsid)};
  Protocols = 4; Transports = TCP; SecType = ${security}; Access_Type = None;
  Squash = ${SQUASH[squash]}; Anonymous_Uid = ${anonUid}; Anonymous_Gid = ${anonGid};
  FSAL { Name = VFS; }
  CLIENT { Clients = ${addresses}; Access_Type = ${access}; }
}
`;
}

/** @param recovery a folder for what outlives a restart */
export function ganeshaText(config: NfsConfig, shares: readonly Share[], recovery: string): string {
  const { port, bind, security } = config;
  const address = bind === undefined ? "" : ` Bind_addr = ${bind};`;
  // NFS 3 would need a port mapper, and without one the daemon ends.
  const head = `# Made by libstorage from its volumes' records, and made again whenever they change.
NFS_CORE_PARAM {
  NFS_Port = ${port};${address} Protocols = 4;
  Enable_NLM = false; Enable_RQUOTA = false; mount_path_pseudo = true;
}
NFS_KRB5 { Active_krb5 = ${security !== "sys"}; }
NFSv4 {
  Lease_Lifetime = ${LEASE_S}; Grace_Period = ${GRACE_S}; RecoveryBackend = fs; RecoveryRoot = "${recovery}";
  Minor_Versions = 0, 1, 2; Only_Numeric_Owners = true;
}
EXPORT_DEFAULTS { Access_Type = None; }
LOG { Default_Log_Level = EVENT; }
`;
  return [head, ...shares.map((share) => exportBlock(share, config)).toSorted()].join("");
}
