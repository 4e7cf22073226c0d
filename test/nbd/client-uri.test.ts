/** NBD URIs as libnbd reads them; and what is refused, with a sentence of what to write instead. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CheckpointError } from '../../src/errors.ts'
import { addressOf, addressText } from '../../src/nbd/client/address.ts'
import { parseNbdUri } from '../../src/nbd/client/uri.ts'
import { proof } from '../support/property.ts'

const tcp = (host: string, port = 10809) => ({ kind: 'tcp', host, port })
const unix = (path: string) => ({ kind: 'unix', path })

describe('taken', () => {
  test.each([
    ['nbd://example.com', tcp('example.com'), '', null],
    ['nbd://example.com/', tcp('example.com'), '', null],
    ['nbd://example.com:1234/vda', tcp('example.com', 1234), 'vda', null],
    ['NBD://example.com/vda', tcp('example.com'), 'vda', null],
    ['nbd://example.com:/vda', tcp('example.com'), 'vda', null],
    ['nbd://', tcp('localhost'), '', null],
    ['nbd://[::1]/vm-17/vda', tcp('::1'), 'vm-17/vda', null],
    ['nbd://[fe80::1%25eth0]:99//vda', tcp('fe80::1%eth0', 99), '/vda', null],
    ['nbd://h/a%20b%2Fc%C3%A4+d', tcp('h'), 'a b/cä+d', null],
    ['nbd://h/vda?unknown=1&more', tcp('h'), 'vda', null],
    ['nbd+unix:///vda?socket=/run/a%20b.sock', unix('/run/a b.sock'), 'vda', null],
    ['nbd+unix://?socket=rel.sock', unix('rel.sock'), '', null],
    ['nbd+unix:///?x=y;socket=/s', unix('/s'), '', null],
    ['nbds://h/vda', tcp('h'), 'vda', {}],
    ['nbds://h/?tls-certificates=/pki', tcp('h'), '', { folder: '/pki' }],
    [
      'nbds+unix:///?socket=/s&tls-hostname=h&tls-verify-peer=false',
      unix('/s'),
      '',
      { hostname: 'h', verify: false },
    ],
  ])('%s', (uri, place, name, tls) => {
    expect(parseNbdUri(uri)).toEqual({ place, name, tls })
  })

  test('an address is told as one writes it', () => {
    expect(addressText(parseNbdUri('nbd://[::1]/x'))).toBe('[::1]:10809')
    expect(addressText(parseNbdUri('nbd://h:1/x'))).toBe('h:1')
    expect(addressText(parseNbdUri('nbd+unix:///x?socket=/s'))).toBe('/s')
  })

  test("the option tls goes before the URI's", () => {
    const { tls } = addressOf({ uri: 'nbds://h/?tls-certificates=/pki', tls: { ca: '/ca.pem' } })
    expect(tls).toEqual({ folder: '/pki', ca: '/ca.pem' })
  })
})

describe('refused (NBD_URI_INVALID)', () => {
  test.each([
    ['', /no URI/],
    ['vda', /no URI/],
    ['nbd:example.com:10809', /no URI/],
    ['nbd:/vda', /no URI/],
    ['http://h/vda', /scheme http/],
    ['nbd+vsock://1/', /scheme nbd\+vsock/],
    ['nbd+ssh://h/vda', /scheme nbd\+ssh/],
    ['nbd+unix:///vda', /add \?socket=/],
    ['nbd+unix:///vda?socket=', /add \?socket=/],
    ['nbd+unix://host/vda?socket=/s', /three slashes/],
    ['nbd+unix:///vda?socket=/a&socket=/b', /socket twice/],
    ['nbd://h/vda?socket=/s', /nbd\+unix/],
    ['nbd://h:0/vda', /port 0/],
    ['nbd://h:65536/vda', /port 65536/],
    ['nbd://h:x/vda', /no host and port/],
    ['nbd://::1/vda', /brackets/],
    ['nbd://[::1/vda', /brackets/],
    ['nbd://[host]/vda', /no IPv6/],
    ['nbd://user@h/vda', /users and passwords/],
    ['nbd://user:secret@h/vda', /users and passwords/],
    ['nbd://h/%', /percent-escaped/],
    ['nbd://h/%zz', /percent-escaped/],
    ['nbd://h/%ff', /percent-escaped/],
    ['nbd://h/%00', /percent-escaped/],
    ['nbd+unix:///x?socket=%00', /percent-escaped/],
    ['nbd://h/vda#1', /%23/],
    [`nbd://h/${'x'.repeat(4097)}`, /4096 bytes/],
    ['nbd://h/?tls-certificates=/pki', /nbds/],
    ['nbds://h/?tls-psk-file=/psk', /pre-shared/],
    ['nbds://h/?tls-verify-peer=perhaps', /true or false/],
  ])('%s', (uri, why) => {
    expect(() => parseNbdUri(uri)).toThrow(
      expect.objectContaining({ code: 'NBD_URI_INVALID', message: expect.stringMatching(why) }),
    )
  })

  test('a target that is none is a mistake of the caller', () => {
    for (const target of [{}, { socket: '' }, { host: '' }, { host: 'h', name: 7 }, { uri: 7 }])
      expect(() => addressOf(target as never)).toThrow(TypeError)
    for (const port of [0, -1, 1.5, 65_536, Number.NaN])
      expect(() => addressOf({ host: 'h', port })).toThrow(RangeError)
    expect(() => addressOf({ socket: '/s', name: 'x'.repeat(4097) })).toThrow(RangeError)
  })
})

test('any name and any path survive being escaped, and any text is read or refused', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'grapheme' }),
      fc.string({ unit: 'grapheme', minLength: 1 }),
      (name, path) => {
        fc.pre(!name.includes('\0') && !path.includes('\0'))
        const uri = `nbd+unix:///${encodeURIComponent(name)}?socket=${encodeURIComponent(path)}`
        expect(parseNbdUri(uri)).toEqual({ place: { kind: 'unix', path }, name, tls: null })
      },
    ),
    proof('NBD URIs, escaped', 500, 50_000),
  )
  const near = fc
    .array(
      fc.oneof(
        fc.constantFrom('nbd', 'nbds', '+unix', '://', '/', '?', 'socket=', '%', '[', ']', ':', '@', '&'),
        fc.string(),
      ),
    )
    .map((parts) => parts.join(''))
  fc.assert(
    fc.property(near, (uri) => {
      try {
        parseNbdUri(uri)
      } catch (error) {
        expect(error).toBeInstanceOf(CheckpointError)
      }
    }),
    proof('NBD URIs, drawn', 1000, 100_000),
  )
})
