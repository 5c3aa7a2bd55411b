/** How long it takes until a volume's device is ready on another host: through the client, and with iscsiadm by hand. */
import { CHAP, E2eHosts, SERVICE } from "./e2e-hosts.js";
import { RemoteHost } from "./remote-host.js";

export interface AttachTime {
  /** Milliseconds of an attach through the client, the server's part included. */
  ours(): Promise<number>;
  /** Milliseconds of making the record, writing the passwords and logging in by hand, to a target that is there. */
  theirs(): Promise<number>;
  end(): Promise<void>;
}

export async function openAttachTime(): Promise<AttachTime> {
  const e2e = await E2eHosts.start();
  const host = await RemoteHost.start(e2e.hosts.b, { service: SERVICE });
  const { id } = await host.call("create", "bench", 1);
  const { user, secret, targetUser, targetSecret } = CHAP;
  return {
    ours: () => host.call("attachTimed", id),
    theirs: () => host.call("loginTimed", id, [user, secret, targetUser, targetSecret]),
    async end() {
      host.close();
      await e2e.hosts.remove();
    },
  };
}
