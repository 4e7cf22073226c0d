/** What tells one run of the machine from another: Linux's boot id (R32). */
import { readFileSync } from 'node:fs'
import { hostname, uptime } from 'node:os'
import type { Machine } from './types.ts'

export const thisMachine: Machine = {
  bootId() {
    try {
      return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    } catch {
      // No such file outside Linux: the minute of the boot tells restarts apart as well as anything there.
      return `${hostname()}-${Math.round((Date.now() / 1000 - uptime()) / 60)}`
    }
  },
}
