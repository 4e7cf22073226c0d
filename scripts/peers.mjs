/**
 * Installs the real programs that the tests compare with (Debian packages), where that is possible: as root, on a
 * machine with apt. Anything else is reported and left alone; the tests that need a missing one are then skipped by name.
 * Costs nothing but a look at PATH when they are all there. Run by scripts/test.mjs, or alone: node scripts/peers.mjs.
 */
import { execFileSync } from 'node:child_process'
import { pathToFileURL } from 'node:url'

/** Program → Debian package. */
export const PEERS = /** @type {const} */ ({
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  'qemu-storage-daemon': 'qemu-system-common',
  fio: 'fio',
  nbdkit: 'nbdkit',
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  blkparse: 'blktrace',
})

/** @param {string} program */
function found(program) {
  try {
    execFileSync('/bin/sh', ['-c', 'command -v "$1"', 'sh', program], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

/** Programs that are not on this machine. */
export function missingPeers() {
  return Object.keys(PEERS).filter((program) => !found(program))
}

/**
 * Tries to install what is missing. Never throws: a machine without the network still runs every other test.
 * @returns {string[]} what is still missing
 */
export function installPeers(log = (/** @type {string} */ line) => process.stderr.write(`${line}\n`)) {
  const missing = missingPeers()
  if (missing.length === 0) return []
  const packages = [...new Set(missing.map((program) => PEERS[/** @type {keyof typeof PEERS} */ (program)]))]
  if (process.getuid?.() !== 0 || !found('apt-get')) {
    log(`peers: missing ${missing.join(', ')}; to run their tests: apt-get install ${packages.join(' ')}`)
    return missing
  }
  log(`peers: installing ${packages.join(', ')}`)
  const options = {
    stdio: /** @type {const} */ (['ignore', 'ignore', 'pipe']),
    timeout: 300_000,
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  }
  try {
    execFileSync('apt-get', ['update', '-q'], options)
    execFileSync('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...packages], options)
  } catch (error) {
    log(`peers: could not install: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`)
  }
  const still = missingPeers()
  if (still.length > 0) log(`peers: still missing ${still.join(', ')}; their tests are skipped by name`)
  return still
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) installPeers()
