/**
 * What is agreed between a client that has named an export, and may have it, and the daemon that serves it, until the
 * first request. A daemon has other exports too, so each option is looked at: a client that was joined to it after its
 * first word could go on to name another one.
 */
import {
  OPTION,
  REFUSAL,
  acknowledged,
  exportOf,
  optionText,
  readOption,
  readReply,
  refused,
} from "./handshake.js";
import type { Inlet, Option } from "./handshake.js";

/**
 * @param option the client's, which names the export
 * @returns whether requests follow; otherwise the client is about to leave
 * @throws {HandshakeError} when it has left
 */
export async function agree(client: Inlet, daemon: Inlet, option: Option): Promise<boolean> {
  const name = exportOf(option);
  for (let asked = option; ; asked = await readOption(client)) {
    if (asked.type === OPTION.abort) {
      client.stream.end(acknowledged(asked));
      return false;
    }
    const isItsOwn = asked.type === OPTION.structuredReply || exportOf(asked) === name;
    if (!isItsOwn) {
      client.stream.write(refused(asked, REFUSAL.policy, "another export was named before"));
      continue;
    }
    daemon.stream.write(optionText(asked));
    // It has no reply of its own: what follows is what the requests begin with.
    if (asked.type === OPTION.exportName) return true;
    const isRefused = await passReplies(daemon, client);
    if (asked.type === OPTION.go && !isRefused) return true;
  }
}

/** All that a daemon has to say to an option. @returns whether it refuses */
async function passReplies(daemon: Inlet, client: Inlet): Promise<boolean> {
  for (;;) {
    const { text, isRefusal, isLast } = await readReply(daemon);
    client.stream.write(text);
    if (isLast) return isRefusal;
  }
}
