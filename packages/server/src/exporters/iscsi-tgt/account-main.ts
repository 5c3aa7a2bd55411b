/**
 * Makes an account in tgtd. `tgtadm` would do, but it takes the password as an argument, which every user of the host
 * can read; so this says to tgtd what tgtadm would say. Argument: the socket. Standard input: `{ user, password }`.
 * Exits with tgtd's error number.
 */
import { connect } from "node:net";
import { text } from "node:stream/consumers";

/** `struct tgtadm_req` of tgt 1.0.x: mode, op, the low-level driver's name, length, tid, sid, lun, and five more. */
const HEADER = 120;
const MODE_ACCOUNT = 7;
const OP_NEW = 0;
const LLD = { at: 8, name: "iscsi" };
const LENGTH_AT = 72;
const TID_AT = 76;
const LUN_AT = 88;

export function accountRequest(user: string, password: string): Buffer {
  const parameters = Buffer.from(`user=${user},password=${password}\0`);
  const header = Buffer.alloc(HEADER);
  header.writeUInt32LE(MODE_ACCOUNT, 0);
  header.writeUInt32LE(OP_NEW, 4);
  header.write(LLD.name, LLD.at);
  header.writeUInt32LE(HEADER + parameters.length, LENGTH_AT);
  header.writeInt32LE(-1, TID_AT);
  header.writeBigInt64LE(-1n, LUN_AT);
  return Buffer.concat([header, parameters]);
}

async function main(socket: string): Promise<number> {
  const { user, password } = JSON.parse(await text(process.stdin)) as Record<string, string>;
  if (user === undefined || password === undefined) return 22;
  const connection = connect(socket);
  connection.write(accountRequest(user, password));
  let answer = Buffer.alloc(0);
  for await (const chunk of connection) {
    answer = Buffer.concat([answer, chunk as Buffer]);
    // `struct tgtadm_rsp`: error number, length.
    if (answer.length >= 8) return answer.readUInt32LE(0);
  }
  return 107;
}

const [, program = "", socket] = process.argv;
if (program.endsWith("account-main.js") && socket !== undefined)
  main(socket).then(
    (code) => process.exit(code === 0 ? 0 : Math.min(code, 255)),
    (error: unknown) => {
      process.stderr.write(`${error instanceof Error ? error.message : ""}\n`);
      process.exit(107);
    },
  );
