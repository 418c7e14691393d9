$count = 0

def pieces(n)
  Enumerator.new { |y| n.times { |i| y << "piece #{i}\n" } }
end

def endless
  piece = "x" * (64 << 10)
  Enumerator.new { |y| loop { y << piece } }
end

def waits
  Enumerator.new do |y|
    y << "piece\n"
    sleep
  end
end

def breaks
  Enumerator.new do |y|
    y << "half"
    raise "broken on purpose"
  end
end

def request(context)
  req = context.req
  context.res.json(
    {
      method: req.method, scheme: req.scheme, host: req.host, port: req.port, path: req.path,
      queryString: req.query_string, query: req.query, url: req.url, headers: req.headers, bodyText: req.body_text
    }
  )
end

def throws(context)
  context.log("before throw")
  raise "thrown on purpose"
end

def logs(context)
  context.req.query["n"].to_i.times { |i| context.log("line #{i}") }
  context.res.text("logged")
end

def log(context)
  context.log("one", "two")
  context.error("three")
  context.res.text("logged")
end

def naps(context)
  context.log("sleep start")
  sleep(context.req.query["ms"].to_i / 1000.0)
  context.log("sleep end")
  context.res.text("slept")
end

def tmp(context)
  file = File.join(ENV.fetch("TMPDIR"), "written")
  File.write(file, "x")
  context.res.text(file)
end

def child(context)
  context.res.text(Process.spawn("sleep", "1000", in: File::NULL, out: File::NULL, err: File::NULL).to_s)
end

def children(context)
  pids = []
  context.req.query["n"].to_i.times { pids << Process.spawn("sleep", "1000", in: File::NULL, out: File::NULL, err: File::NULL) }
  context.res.text("started")
ensure
  pids.each { |pid| Process.kill(:KILL, pid) }
  pids.each { |pid| Process.wait(pid) }
end

def used = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)

def burn(context)
  till = used + context.req.query["ms"].to_i / 1000.0
  nil while used < till
  context.res.text("burned")
end

def fill(context)
  file = File.join(ENV.fetch("TMPDIR"), "filled")
  context.req.query["mib"].to_i.times { File.write(file, "x" * (1 << 20), mode: "a") }
  context.res.text("written")
ensure
  File.delete(file)
end

def garbage(context)
  IO.for_fd(3, "w", autoclose: false).syswrite("\xff".b * 64)
  sleep
rescue SystemCallError, ArgumentError
  context.res.text("no")
end

def main(context)
  req, res = context.req, context.res
  case req.path
  when "/hello" then res.json({ "hello" => "world" })
  when "/echo" then res.binary(req.body_binary, 200, { "content-type" => req.headers["content-type"] })
  when "/request" then request(context)
  when "/body" then res.json({ body: req.body })
  when "/bodyjson" then res.json({ body: req.body_json })
  when "/text" then res.text("téxt", 201, { "X-Custom" => "Value" })
  when "/binary" then res.binary((0..255).to_a.pack("C*"))
  when "/json" then res.json({ a: 1, b: "é", c: { d: true } })
  when "/empty" then res.empty
  when "/redirect" then res.redirect("https://example.org/a")
  when "/found" then res.redirect("https://example.org/b", 302, { "x-why": "moved" })
  when "/send" then res.send("sent", 202)
  when "/noreturn"
    res.text("dropped")
    nil
  when "/record" then { body: "own" }
  when "/status" then res.text("status", req.query["n"].to_i)
  when "/type" then res.text("typed", 200, { "Content-Type" => req.body_text })
  when "/cookies" then res.text("cookies", 200, { "set-cookie" => %w[a=1 b=2] })
  when "/crlf" then res.text("crlf", 200, { "x-bad" => "a\r\nx-evil: 1" })
  when "/throw" then throws(context)
  when "/env" then res.json({ value: ENV[req.query["name"]] })
  when "/environ" then res.json(ENV.to_h)
  when "/log" then log(context)
  when "/logs" then logs(context)
  when "/longlog"
    context.log("x" * 9000)
    res.text("logged")
  when "/native"
    puts "native out"
    res.text("native")
  when "/sleep" then naps(context)
  when "/hang"
    context.log("hanging")
    sleep
  when "/spin"
    context.log("spinning")
    loop {}
  when "/exit"
    context.log("exiting")
    exit!(3)
  when "/count" then res.text(($count += 1).to_s)
  when "/big" then res.text("x" * (req.query["mib"].to_i << 20))
  when "/stream" then res.send(pieces(req.query["n"].to_i))
  when "/endless" then res.send(endless)
  when "/waits" then res.send(waits)
  when "/alloc" then res.text(("x" * (context.req.query["mib"].to_i << 20)).empty? ? "" : "allocated")
  when "/breaks" then res.send(breaks)
  when "/cwd" then res.text(Dir.pwd)
  when "/tmp" then tmp(context)
  when "/child" then child(context)
  when "/children" then children(context)
  when "/burn" then burn(context)
  when "/fill" then fill(context)
  when "/garbage" then garbage(context)
  else res.text("not found", 404)
  end
end
